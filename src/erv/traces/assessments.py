"""What is known about a clip's answer, as MLflow's assessments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Assessment

TRUTH, RIGHT, CONSISTENT = "truth", "right", "consistent"
CHAT_JUDGES = ("openai", "local")  # a judge's name begins with its kind
OURS = "erv"


def assess(row: Mapping[str, Any], run_id: str, trace_id: str) -> list[Assessment]:
    """The assessments of one clip.

    `truth` is an expectation. Everything else is feedback: of each judge the emotion that it named, or else
    its outcome; `right`, whether the answer is the truth; and `consistent`, whether the first judge hears the
    answer in the explanation. The last is left out if there is no answer, or that judge heard no emotion.

    Args:
        row: of the predictions table.
        run_id: the run of the evaluation, which people can filter by.
        trace_id: of the trace. The assessments' ids follow from it, so that writing them again adds nothing.
    """
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Expectation, Feedback
    from mlflow.tracing.constant import AssessmentMetadataKey

    from erv.evaluate.outcomes import contradicts, heard_outside

    def source(name: str) -> AssessmentSource:
        asked = name.partition(":")[0] in CHAT_JUDGES
        return AssessmentSource(AssessmentSourceType.LLM_JUDGE if asked else AssessmentSourceType.CODE, name)

    def feedback(name: str, value: str | bool, rationale: str, by: str) -> Feedback:
        metadata = {AssessmentMetadataKey.SOURCE_RUN_ID: run_id}
        return Feedback(
            name=name,
            value=value,
            source=source(by),
            rationale=rationale,
            metadata=metadata,
            trace_id=trace_id,
        )

    label, answer, verdicts = row["label"], row["predicted"], row["verdicts"]
    found: list[Assessment] = [
        Expectation(name=TRUTH, value=label, source=source(OURS), trace_id=trace_id),
        *(
            feedback(said["judge"], said["emotion"] or said["outcome"], _reading(said, row), said["judge"])
            for said in verdicts
        ),
        feedback(RIGHT, answer == label, f"The truth is {label}; {_answer(answer)}.", OURS),
    ]
    first = verdicts[0]
    named = {**row, "judged": first["emotion"]}
    if (first["emotion"] is not None or heard_outside(named)) and answer is not None:
        found.append(feedback(CONSISTENT, not contradicts(named), _reading(first, row), first["judge"]))
    for assessment in found:
        assessment.assessment_id = _id(trace_id, assessment.name)
    return found


def _reading(said: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a judge's verdict means, in a sentence."""
    answer, emotion = row["predicted"], said["emotion"]
    if emotion is not None:
        compared = ", which is the answer" if answer == emotion else f"; {_answer(answer)}"
        return f"The explanation is read as {emotion}{compared}."
    return {
        "silent": "No emotion stands out in the explanation.",
        "outside": f"The explanation names an emotion that is not in the space of {row['dataset']}.",
        "unreadable": "The explanation is in a language or in words that the judge can't read.",
        "failed": "The judge gave no usable reply.",
    }[said["outcome"]]


def _answer(answer: str | None) -> str:
    return "the completion has no answer that counts" if answer is None else f"the answer is {answer}"


def _id(trace_id: str, name: str) -> str:
    return f"a-{hashlib.sha256(f'{trace_id} {name}'.encode()).hexdigest()[:32]}"
