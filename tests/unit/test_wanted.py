"""Which stages a flow run is about, and which of them it forces."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.errors import ExitCode
from erv.pipeline import PipelineError, PipelineStage, TargetError, Unchanged
from flows.wanted import Wanted


def stage(name: str, *upstream: str) -> PipelineStage:
    group = name.partition("@")[0]
    needs = tuple(sorted(f"out/{up}" for up in upstream))
    return PipelineStage(name, upstream, f"python {group}.py", needs, (f"out/{name}",))


STAGES = (stage("make@a"), stage("make@b"), stage("join", "make@a", "make@b"), stage("last", "join"))
ALL = frozenset(item.name for item in STAGES)


def names(stages: tuple[PipelineStage, ...]) -> list[str]:
    return [item.name for item in stages]


@pytest.mark.parametrize(
    ("targets", "only", "forced"),
    [
        (None, None, ALL),
        (["join"], None, {"join"}),
        (["make", "last"], None, {"make@a", "make@b", "last"}),
        (None, "last", {"last"}),
    ],
)
def test_only_what_was_named_is_forced(targets: list[str] | None, only: str | None, forced: set[str]) -> None:
    assert Wanted(targets, True, only).forced(STAGES) == forced
    assert Wanted(targets, False, only).forced(STAGES) == set()


def test_one_stage_alone_runs_if_all_above_it_is_up_to_date() -> None:
    wanted = Wanted(only="join")
    needed = wanted.needed(STAGES)
    assert names(needed) == ["make@a", "make@b", "join"]
    assert names(wanted.to_run(needed, Unchanged(ALL, 0.0))) == ["join"]
    with pytest.raises(
        PipelineError, match=r"^join can't run alone: out/make@b of make@b is missing; `erv run"
    ):
        wanted.to_run(needed, Unchanged(frozenset({"make@a"}), 0.0))


def test_one_stage_alone_names_what_lies_further_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = Wanted(only="last")
    needed = wanted.needed(STAGES)
    for path in (path for stage in needed for path in stage.outputs):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    outs = next(stage.outputs[0] for stage in needed if stage.name == "join")
    with pytest.raises(
        PipelineError, match=f"{outs} of join may be out of date, as make@b isn't up to date;"
    ):
        wanted.to_run(needed, Unchanged(frozenset({"make@a"}), 0.0))
    with pytest.raises(PipelineError, match=f"{outs} of join is out of date;"):
        wanted.to_run(needed, Unchanged(frozenset({"make@a", "make@b"}), 0.0))


def test_targets_run_with_what_they_need() -> None:
    wanted = Wanted(["join"])
    needed = wanted.needed(STAGES)
    assert wanted.to_run(needed, Unchanged(frozenset(), 0.0)) == needed


def test_one_stage_alone_is_exactly_one() -> None:
    with pytest.raises(PipelineError, match="make is 2 stages, expected one: make@a, make@b"):
        Wanted(only="make").needed(STAGES)
    with pytest.raises(PipelineError, match=r"no stage 'nothing' in dvc\.yaml"):
        Wanted(only="nothing").needed(STAGES)
    with pytest.raises(PipelineError, match="only=last and targets join: give one of the two"):
        Wanted(["join"], only="last").needed(STAGES)


@pytest.mark.parametrize("wanted", [Wanted(["nosuch"]), Wanted(only="nosuch"), Wanted(["make"], only="make")])
def test_a_wrong_name_is_refused_as_a_wrong_option_before_the_flow(
    wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow began, failed with exit code 1, and the team was told."""
    monkeypatch.chdir(tmp_path)
    Wanted().check()
    wanted.check()  # no pipeline here: the flow says so
    monkeypatch.setattr("erv.pipeline.read_stages", lambda: STAGES)
    with pytest.raises(TargetError) as refused:
        wanted.check()
    assert refused.value.exit_code == ExitCode.USAGE
    Wanted(["make"]).check()
