"""The curves of a training: kept while it runs, whole after it was stopped, equal bytes for equal points."""

from __future__ import annotations

from pathlib import Path

from erv.curves import Curves, write_curves


def test_points_are_kept_and_passed_on(tmp_path: Path) -> None:
    said: list[tuple[dict[str, float], int]] = []
    curves = Curves(tmp_path / "checkpoints", lambda values, step: said.append((values, step)))
    curves({"loss": 0.5, "step_seconds": 3.0}, 1)
    curves({"reward/format": 1.0, "loss": 0.123456789}, 2)
    assert said == [({"loss": 0.5, "step_seconds": 3.0}, 1), ({"reward/format": 1.0, "loss": 0.123456789}, 2)]
    curves.write(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == (
        "step,series,value\n1,loss,0.5\n2,loss,0.123457\n2,reward/format,1\n"
    )


def test_a_resumed_training_has_whole_curves(tmp_path: Path) -> None:
    stopped = Curves(tmp_path, lambda values, step: None)
    for step in (1, 2, 3):
        stopped({"loss": float(step)}, step)
    kept = next(tmp_path.glob("*.jsonl"))
    kept.write_text(kept.read_text() + '{"step": 4, "poi')  # killed while it wrote
    resumed = Curves(tmp_path, lambda values, step: None)
    for step in (3, 4):  # the newest checkpoint was that of step 2
        resumed({"loss": 10.0 * step}, step)
    resumed.write(tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text().splitlines()[1:] == [
        "1,loss,1",
        "2,loss,2",
        "3,loss,30",
        "4,loss,40",
    ]


def test_a_training_that_took_no_step_has_an_empty_table(tmp_path: Path) -> None:
    write_curves({}, tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "step,series,value\n"
