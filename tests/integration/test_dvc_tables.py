"""What DVC shows of a run: plots without the internet, a one-line change of parameters, few metrics."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from erv.curves import write_curves
from erv.evaluate.metrics import METRICS
from erv.evaluate.summary import write_figures
from erv.plots.page import write_page
from tests.support.chromium import chromium, installed
from tests.support.finished import finish
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
        drawn = "document.querySelector('canvas, svg.marks').getBoundingClientRect()"
        assert browser.evaluate(f"{drawn}.width") > 300
        assert browser.troubles == []
        assert [address for address in browser.requests if not address.startswith("file:")] == []


def write_reading(value: float, path: Path) -> None:
    """The figures of a run in which every metric has this value."""
    scopes = {"overall": {metric: {"value": value} for metric in (*METRICS, "format", "words")}}
    reading = {"policies": dict.fromkeys(("sft", "r1_omni", "erv"), scopes)}
    panel = dict.fromkeys(("embedding", "lexical", "majority"), reading)
    write_figures({**reading, "judges": panel}, "erv", path)


# Experiment -> its change of params.yaml, and its metrics.
EXPERIMENTS = {
    "low": ("beta: 0.02", "beta: 0.01", 0.61234),
    "high": ("beta: 0.02", "beta: 0.5", 0.44321),
    "long": ("  max_steps: 80 ", "  max_steps: 160 ", 0.71234),
    "other": ("seed: 101", "seed: 7", 0.51234),
}


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the real pipeline and parameters, and several experiments."""
    from dvc.repo import Repo

    folder = finish(tmp_path_factory.mktemp("experiments"))
    parameters = folder / "params.yaml"
    before = parameters.read_text()
    write_reading(0.5, folder / "report/figures.json")
    with contextlib.chdir(folder), Repo(".") as repo:
        repo.commit("report", force=True)
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        for words in (["add", "--all"], [*who, "commit", "-qm", "figures"]):
            subprocess.run(["git", *words], check=True)
    for name, (old, new, value) in EXPERIMENTS.items():
        parameters.write_text(before.replace(old, new, 1))
        write_reading(value, folder / "report/figures.json")
        (folder / "models/policy/erv/content").write_text(name)  # and an output that another stage reads
        with contextlib.chdir(folder), Repo(".") as repo:
            repo.experiments.save(name=name, force=True)
    parameters.write_text(before)
    return folder


def documented(command: str) -> list[str]:
    """The words of a command in docs/daily.md after `dvc`, without its comment."""
    lines = (ROOT / "docs/daily.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"dvc {command} ")]
    return shlex.split(line, comments=True)[1:]


def test_columns_of_a_queue_are_dropped() -> None:
    """DVC shows them once an experiment was queued; they took the room of the parameters."""
    from dvc.commands.experiments.show import show_experiments
    from dvc.compare import TabularData

    *_, pattern = documented("exp show")
    columns = ["Experiment", "rev", "typ", "Created", "parent", "State", "Executor", "erv.WAR", "seed"]
    table = TabularData(columns)
    for words in ("main 1 baseline now - - - 0.5 1", "low 2 branch_base now - Success Dvc-task 0.6 2"):
        table.append(words.split())
    headers = {"metrics": ["erv.WAR"], "params": ["seed"], "deps": []}
    show_experiments(table, headers, drop=[pattern], csv=True)
    assert " ".join(table.keys()) == "Experiment rev typ Created parent erv.WAR seed"


@pytest.mark.slow
def test_experiments_can_be_read_in_160_columns(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real dvc.yaml, where the figures of other policies hid which parameters differ."""
    monkeypatch.setenv("COLUMNS", "160")
    shown = dvc(experiments, *documented("exp show"), "--no-pager").splitlines()
    assert max(map(len, shown)) <= 160
    assert "…" not in "".join(shown), "nothing is cut"
    (head,) = [line.split() for line in shown if "Experiment" in line]
    metrics = [f"erv.{metric}" for metric in METRICS]
    assert head == ["Experiment", "Created", *metrics, "seed", "grpo.max_steps", "grpo.beta"]
    rows = {name: line for name in EXPERIMENTS for line in shown if f"[{name}]" in line}
    for name, (_, new, value) in EXPERIMENTS.items():
        words = rows[name].split()
        assert words.count(str(value)) == len(metrics)
        assert new.split()[1] in words


@pytest.mark.slow
def test_long_names_are_whole_where_the_docs_say_so(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docs promised four parameters, and two long ones shrank to `…`."""
    monkeypatch.setenv("COLUMNS", "160")
    parameters = experiments / "params.yaml"
    before = parameters.read_text()
    text = before.replace("max_completion_length: 80", "max_completion_length: 90", 1)
    weighed = text.replace("      explanation: 1.0", "      explanation: 0.5", 1)
    assert weighed != text != before
    parameters.write_text(weighed)
    try:
        command = documented("exp show")
        assert "…" in dvc(experiments, *command, "--no-pager")
        for way in ([], ["--csv"]):  # without a terminal, as before `| less -S`
            shown = dvc(experiments, *command, *way)
            assert "…" not in shown
            assert {"grpo.max_completion_length", "variants.erv.rewards.explanation"} <= set(
                re.split(r"[\s,]+", shown)
            )
    finally:
        parameters.write_text(before)
    said = (ROOT / "docs/daily.md").read_text(encoding="utf-8")
    assert "`| less -S`" in said


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
