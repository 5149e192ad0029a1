"""What a run says about itself against an earlier one."""

from __future__ import annotations

from dataclasses import replace

from erv.parameters import Change
from erv.tracking.description import CHAMPION, LAST, Reference
from erv.tracking.rest import Run, RunData, RunInfo
from erv.tracking.since import MEASURED_BY, MEASURED_ON, paragraph

INFO = RunInfo("0123456789abcdef", "1", "erv · fold 1", "FINISHED", 0, 0, "")
ALIKE = {MEASURED_ON: "1", MEASURED_BY: "2"}
RUN = Run(INFO, RunData(tags={"erv.git_commit": "a" * 40, **ALIKE}))
EPC, WAR = "erv/overall/EPC", "erv/overall/WAR"


def test_what_changed_is_said_line_by_line() -> None:
    reference = Reference(LAST, RUN, [Change("grpo.beta", "0.02", "0.1")])
    lines = paragraph(reference, {EPC: 0.5, WAR: 0.8, "x": 1.0}, {EPC: 0.625, WAR: 0.8}, "b" * 40, ALIKE)
    assert lines == [
        "since the last run, erv · fold 1 (01234567):",
        "  grpo.beta 0.02 → 0.1",
        "  commit aaaaaaaa → bbbbbbbb",
        "  erv EPC: 50.0 → 62.5 (+12.5)",
    ]


def test_a_run_that_is_both_is_told_once() -> None:
    lines = paragraph(Reference(CHAMPION, RUN, []), {EPC: 0.5}, {EPC: 0.5}, None, ALIKE, [LAST])
    assert lines[0] == "against the champion's run and since the last run, erv · fold 1 (01234567):"


def test_whose_run_the_last_one_was_is_said() -> None:
    """It was a colleague's on the same experiment, and looked like one's own."""
    run = Run(INFO, RunData(tags={"erv.started_by": "Bea (bea@box)"}))
    lines = paragraph(Reference(LAST, run, []), {}, {}, None, {})
    assert lines[0] == "since the last run of Bea (bea@box), erv · fold 1 (01234567):"
    lines = paragraph(Reference(CHAMPION, run, []), {}, {}, None, {}, [LAST])
    assert lines[0].startswith("against the champion's run and since the last run of Bea (bea@box), erv")


def test_nothing_changed_is_said_too() -> None:
    lines = paragraph(Reference(LAST, RUN, []), {EPC: 0.5}, {EPC: 0.5}, "a" * 40, ALIKE)
    assert lines[1:] == ["  parameters: the same", "  metrics: the same"]


def test_a_metric_that_becomes_defined_is_told() -> None:
    """Of no answer that is right, none contradicts itself: the metric was missing, and so was its change."""
    reference, metric = Reference(LAST, RUN, []), "erv/overall/inconsistency"
    lines = paragraph(reference, {EPC: 0.5}, {EPC: 0.5, metric: 0.6}, None, ALIKE)
    assert lines[2:] == ["  erv inconsistency: none → 60.0"]
    lines = paragraph(reference, {EPC: 0.5, metric: 0.6}, {EPC: 0.5, metric: None}, None, ALIKE)
    assert lines[2:] == ["  erv inconsistency: 60.0 → none"]
    lines = paragraph(reference, {EPC: 0.5}, {EPC: 0.5, metric: None}, None, ALIKE)
    assert lines[2:] == ["  metrics: the same"]


def test_figures_on_other_clips_or_by_other_judges_are_not_compared() -> None:
    """They were "the same", where a third of the test clips was gone."""
    reasons = {
        ("1", "2"): "the same",
        ("9", "2"): "not compared, as they were measured on other test clips then; ",
        (
            "1",
            "9",
        ): "not compared, as they were measured by other judges or code, or with other decoding then; ",
    }
    for (clips, judges), reason in reasons.items():
        run = replace(RUN, data=RunData(tags={MEASURED_ON: clips, MEASURED_BY: judges}))
        lines = paragraph(Reference(LAST, run, []), {EPC: 0.5}, {EPC: 0.5}, None, ALIKE)
        assert lines[2].startswith(f"  metrics: {reason}")
    silent = replace(RUN, data=RunData(tags={}))
    lines = paragraph(Reference(LAST, silent, []), {EPC: 0.5}, {EPC: 0.5}, None, ALIKE)
    assert "as that run did not record its test clips" in lines[2]


def test_figures_are_not_compared_if_this_run_does_not_know_its_clips() -> None:
    """They were compared, as nothing spoke against it."""
    for known in ({}, {MEASURED_ON: "1"}):
        lines = paragraph(Reference(LAST, RUN, []), {EPC: 0.5}, {EPC: 0.6}, None, known)
        (line,) = lines[2:]
        assert line.startswith(
            "  metrics: not compared, as what the policy was tested on here is not recorded"
        )


def test_what_is_not_known_is_said() -> None:
    lines = paragraph(Reference(LAST, RUN, None), {}, {EPC: 0.5}, None, ALIKE)
    assert lines[1:] == [
        "  parameters: unknown, that run recorded none",
        "  metrics: that run has none of the candidate",
    ]
    lines = paragraph(Reference(LAST, RUN, []), {"dfew/clips": 9.0}, {EPC: 0.5}, None, ALIKE)
    assert lines[1:] == ["  parameters: the same", "  metrics: that run has none of the candidate"]


def test_a_long_list_is_cut() -> None:
    changed = [Change(f"p{n}", "1", "2") for n in range(9)]
    lines = paragraph(replace(Reference(LAST, RUN, changed)), {}, {}, None, {})
    assert lines[-1] == "  and 3 more parameters; MLflow lists all"
    assert len(lines) == 8
