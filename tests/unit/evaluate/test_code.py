"""Digests of the code that reads and counts: what changes them, and what doesn't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erv.evaluate.code import COUNTS, READS, code_digests
from tests.support.paths import ROOT
from tests.support.rooms import closure

PACKAGE = ROOT / "src/erv"
# What these modules import besides, which decides no verdict by itself: files, messages and settings; how a
# server is asked, whose replies are kept; where models and texts come from; intervals of a judge's worth.
AROUND = (
    "erv.chat",
    "erv.determinism",
    "erv.errors",
    "erv.evaluate.score_intervals",
    "erv.files",
    "erv.manifest",
    "erv.model_folders",
    "erv.progress",
    "erv.settings",
    "erv.sources",
    "erv.storage",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the code."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "erv", ignore=shutil.ignore_patterns("__pycache__")))


def edited(package: Path, module: str, text: str) -> set[str]:
    """Which digests differ once a line is added to a module."""
    before = code_digests(["mafw"], package)
    path = package / module
    path.write_text(f"{path.read_text()}\n{text}\n")
    after = code_digests(["mafw"], package)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("evaluate/judges/embedding.py", {"reading", "figures"}),
        ("evaluate/judges/lexical.py", {"reading", "figures"}),
        ("evaluate/metrics.py", {"reading", "figures"}),
        ("labels/label_space.py", {"reading", "figures"}),
        ("sentences.py", {"reading", "figures"}),
        ("evaluate/outcomes.py", {"figures"}),
        ("evaluate/sets.py", {"figures"}),
        ("evaluate/summary.py", set()),
        ("chat/endpoint.py", set()),
        ("report/page.py", set()),
    ],
)
def test_code_that_reads_or_counts_changes_them(package: Path, module: str, changed: set[str]) -> None:
    assert edited(package, module, "# a remark") == set()
    assert edited(package, module, "ANOTHER = 1") == changed


def test_a_label_space_counts_by_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "data/label_spaces/own.yaml"
    own.parent.mkdir(parents=True)
    text = "name: own\nlabels:\n  - {id: 1, name: joy, synonyms: [glad]}\nmaps: {mafw: {joy: happiness}}\n"

    def digest(folder: str, content: str) -> dict[str, str]:
        path = tmp_path / folder / "data/label_spaces/own.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        monkeypatch.chdir(tmp_path / folder)
        return code_digests(["own"])

    usual = digest("usual", text)
    assert digest("remark", f"# a remark\n{text}") == usual
    for name, other in {
        "map": text.replace("happiness", "neutral"),
        "word": text.replace("glad", "gay"),
    }.items():
        assert not usual.items() & digest(name, other).items(), name


def test_another_process_has_the_same() -> None:
    script = "from erv.evaluate.code import code_digests; print(code_digests(['ravdess', 'mafw']))"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed},
        )
        assert found.stdout.strip() == str(code_digests(["mafw", "ravdess"]))


def test_all_that_reads_is_in_them() -> None:
    listed = tuple(f"erv.{place.removesuffix('.py').replace('/', '.')}" for place in (*READS, *COUNTS))

    def is_listed(module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in listed)

    def is_around(module: str) -> bool:
        return not is_listed(module) and (module.startswith(AROUND) or module == "erv.evaluate")

    starts = [f"erv.evaluate.{name}" for name in ("evaluate", "judges.build", "judges.panel")]
    found = {module for start in starts for module in closure(start, is_around)}
    assert {module for module in found if not is_listed(module)} == set()
    for place in (*READS, *COUNTS):
        assert (PACKAGE / place).exists()
