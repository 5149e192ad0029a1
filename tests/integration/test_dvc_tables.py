"""What DVC shows of a run: plots without the internet, a one-line change of parameters, few metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from erv.curves import write_curves
from erv.evaluate.metrics import METRICS
from erv.evaluate.summary import write_figures
from erv.plots.page import write_page
from tests.support.chromium import chromium, installed
from tests.support.paths import ROOT

PIPELINE = """
stages:
  train:
    cmd: "true"
    outs: [result.txt]
    plots:
      - curves.csv: {cache: false, template: learning_curves, x: step, y: value, title: "train: curves"}
"""


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    variables = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    templates = tmp_path / ".dvc/plots"
    templates.mkdir(exist_ok=True)
    name = "learning_curves.json"
    (templates / name).write_text((ROOT / ".dvc/plots" / name).read_text())
    points = {(step, series): step / 10 for step in range(1, 9) for series in ("reward", "kl", "loss")}
    write_curves(points, tmp_path / "curves.csv")
    return tmp_path


@pytest.mark.slow
def test_plots_are_drawn_without_the_internet(repository: Path) -> None:
    if installed() is None:
        pytest.skip("no Chromium")
    write_page(repository / ".dvc/tmp/plots.html")
    dvc(repository, "config", "--local", "plots.html_template", "tmp/plots.html")
    dvc(repository, "plots", "show", "--out", "drawn")
    page = repository / "drawn/index.html"
    assert "cdn." not in page.read_text()
    with chromium() as browser:
        browser.open(page.as_uri())
        browser.wait("document.querySelectorAll('canvas, svg.marks').length === 1")
        assert browser.evaluate("document.querySelector('canvas').width") > 300
        assert browser.troubles == []
        assert [address for address in browser.requests if not address.startswith("file:")] == []


def test_the_candidate_can_be_read_in_160_columns(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    scopes = {"overall": {metric: {"value": 0.123456} for metric in (*METRICS, "format", "words")}}
    reading = {"policies": dict.fromkeys(("sft", "r1_omni", "erv", "zero"), scopes)}
    panel = dict.fromkeys(("embedding", "lexical", "majority"), reading)
    write_figures({**reading, "judges": panel}, "zero", repository / "figures.json")
    with (repository / "dvc.yaml").open("a") as stream:
        stream.write("metrics: [figures.json]\n")
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["add", "--all"], [*who, "commit", "-qm", "figures"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    shown = dvc(repository, "exp", "show", "--no-pager").splitlines()
    assert max(map(len, shown)) <= 160
    (head,) = [line for line in shown if "Experiment" in line]
    assert [f"zero.{metric}" for metric in METRICS] == head.split()[2 : 2 + len(METRICS)]


@pytest.mark.parametrize(
    "override", ["grpo.beta=0.1", "variants.erv.rewards.explanation=0.5", "machine.grpo.rows_per_pass=4"]
)
def test_setting_a_parameter_for_an_experiment_changes_one_line(override: str, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    before = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(before)
    apply_overrides(path, [override])
    pairs = zip(before.splitlines(), path.read_text().splitlines(), strict=True)
    (changed,) = [(old, new) for old, new in pairs if old != new]
    assert changed[0].partition("#")[2] == changed[1].partition("#")[2], "the comment stays"
    assert override.rpartition("=")[2] in changed[1]
