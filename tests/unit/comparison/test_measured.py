"""Tags by which two runs know whether their figures compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import stages.report
from erv.comparison.measured import measured_of
from erv.environment import Environment
from erv.evaluate.measured import measured_tags
from erv.tracking.description import LAST, Description, Reference
from erv.tracking.rest import Run, RunData, RunInfo
from erv.tracking.since import MEASURED_BY, MEASURED_ON
from flows import results
from tests.unit.register.test_register import predictions, write_evaluation

MEASURED: dict[str, Any] = {
    "judge": {"digest": "j"},
    "decoding": {"split": "test"},
    "code": {"reading": "r", "figures": "f"},
}


def tags(
    folder: Path, right: int = 50, prefix: str = "", content: str = "", **measured: Any
) -> dict[str, str]:
    rows = predictions(right, 50, prefix=prefix, content=content)
    write_evaluation(folder, rows, **{**MEASURED, **measured})
    return measured_tags(folder / "predictions.parquet", folder / "metrics.json")


def test_answers_make_no_difference(tmp_path: Path) -> None:
    assert tags(tmp_path / "a", right=40) == tags(tmp_path / "b", right=60)


def test_clips_judges_and_decoding_do(tmp_path: Path) -> None:
    usual = tags(tmp_path / "usual")
    for other in ({"prefix": "other"}, {"content": "other files of the same names"}):
        clips = tags(tmp_path / "clips", **other)
        same = (clips[MEASURED_ON] == usual[MEASURED_ON], clips[MEASURED_BY] == usual[MEASURED_BY])
        assert same == (False, True)
    for name, measured in {
        "judge": {"judge": {"digest": "k"}},
        "decoding": {"decoding": {"split": "validation"}},
        "panel": {"judges": {"lexical": {"digest": "l"}}},
        "code that reads": {"code": {"reading": "s", "figures": "f"}},
        "code that counts": {"code": {"reading": "r", "figures": "g"}},
    }.items():
        found = tags(tmp_path / name, **measured)
        assert found[MEASURED_ON] == usual[MEASURED_ON]
        assert found[MEASURED_BY] != usual[MEASURED_BY], name


EVALUATED = {
    "evaluate@erv": {
        "cmd": "evaluate",
        "outs": [
            {"path": f"eval/erv/{name}", "md5": "0" * 32} for name in ("predictions.parquet", "metrics.json")
        ],
    }
}


def test_what_an_earlier_run_evaluated_is_found(tmp_path: Path) -> None:
    wanted = tags(tmp_path / "eval/erv")
    assert measured_of(EVALUATED, "erv", tmp_path) == wanted
    assert measured_of(EVALUATED, "sft", tmp_path) == {}
    (tmp_path / "eval/erv/metrics.json").unlink()
    assert measured_of(EVALUATED, "erv", tmp_path) == {}


class Parent:
    """Keeps what a run is told of itself, or of the experiment that contains it."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags.update(tags)

    set_measured = set_tags

    def log_results(self, values: dict[str, float]) -> None:
        self.values = values


def test_a_run_that_evaluated_nothing_itself_knows_what_its_figures_were_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `erv run --only report`, figures on other clips were compared as if they were of the same."""
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": EVALUATED}))
    tags(tmp_path / "eval/erv")
    before = Run(
        RunInfo("0" * 32, "1", "before", "FINISHED", 0, 0, ""),
        RunData(tags=tags(tmp_path / "then", prefix="other")),
    )
    described = Description("now", {}, {"erv.candidate": "erv"}, (Reference(LAST, before, []),))
    server = type("Server", (), {"metrics": lambda _self, _run: {"erv/overall/EPC": 0.5}})()
    monkeypatch.setattr("erv.tracking.lock_entries.server_of", lambda _environment: server)
    figures = {"policies": {"erv": {"overall": {"EPC": {"value": 0.75}}}}}
    parent: Any = Parent()
    lines = results.since_before(Environment(tmp_path), parent, described, figures)
    assert "metrics: not compared, as they were measured on other test clips then" in lines[-1]
    assert parent.tags == tags(tmp_path / "eval/erv")


def test_the_report_says_what_the_figures_of_an_experiment_were_measured_on(tmp_path: Path) -> None:
    """No flow does: their figures were never compared."""
    wanted = tags(tmp_path / "erv")
    figures = {"policies": {"erv": {"overall": {"EPC": {"value": 0.75}}}}}
    run: Any = Parent()
    stages.report.log_figures(figures, tmp_path, "erv", run)
    assert (run.values, run.tags) == ({"erv/overall/EPC": 0.75}, wanted)
    other: Any = Parent()
    stages.report.log_figures(figures, tmp_path, "rft", other)
    assert other.tags == {}, "the candidate is not among those that are compared"
