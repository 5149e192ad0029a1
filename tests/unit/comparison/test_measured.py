"""Tags by which two runs know whether their figures compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erv.comparison.measured import measured_tags
from erv.tracking.since import MEASURED_BY, MEASURED_ON
from tests.unit.register.test_register import predictions, write_evaluation

MEASURED: dict[str, Any] = {"judge": {"digest": "j"}, "decoding": {"split": "test"}}


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
    }.items():
        found = tags(tmp_path / name, **measured)
        assert found[MEASURED_ON] == usual[MEASURED_ON]
        assert found[MEASURED_BY] != usual[MEASURED_BY], name
