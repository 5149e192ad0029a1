"""The interface of a judge, and what it can say about an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from erv.errors import EvaluationError
from erv.labels import LabelSpace

Outcome = Literal["named", "silent", "outside", "unreadable", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SPACE = "mafw"  # the space in which judges know emotions and are measured


@dataclass(frozen=True)
class Verdict:
    """What a judge says about one explanation.

    Attributes:
        outcome: `named` (an emotion of the data set's space), `silent` (nothing to read, or no emotion stands
            out), `outside` (an emotion that is not in the data set's space), `unreadable` (a language or
            words that the judge can't read) or `failed` (no usable reply). Only `named` counts as a reading;
            none of the others is neutral.
        emotion: a name of the data set's space if the outcome is `named`, else None.

    Raises:
        ValueError: outcome and emotion contradict each other.
    """

    outcome: Outcome
    emotion: str | None = None

    def __post_init__(self) -> None:
        if (self.outcome == "named") != (self.emotion is not None):
            raise ValueError(f"a verdict {self.outcome!r} with the emotion {self.emotion!r}")


SILENT, OUTSIDE = Verdict("silent"), Verdict("outside")
UNREADABLE, FAILED = Verdict("unreadable"), Verdict("failed")


class Judge(Protocol):
    """Names the emotion that an explanation speaks of, without seeing clip, answer or truth."""

    @property
    def name(self) -> str:
        """Its name in tables; no two judges of a panel share one."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that it was given to learn from."""

    @property
    def weights(self) -> frozenset[str]:
        """Digests of the tensors that it runs on, see `erv.evaluate.judges.independence`."""

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[Verdict]:
        """One verdict per explanation, in order; equal explanations get equal verdicts."""

    def knows(self, space: LabelSpace) -> tuple[str, ...]:
        """The names of a space that it can give, in their order."""

    def describe(self) -> dict[str, Any]:
        """What is known of it: at least name, architecture, and a digest that equal judges share."""


def placed(emotion: str | None) -> Verdict:
    """The verdict on an emotion of the data set's space; None stands for one that is not in it."""
    return OUTSIDE if emotion is None else Verdict("named", emotion)


def one_each(names: Sequence[str]) -> None:
    """Raises EvaluationError if two judges share a name."""
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise EvaluationError(f"two judges are called {twice[0]!r}; change evaluate.judges in params.yaml")
