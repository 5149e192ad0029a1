"""What was decided on one gate of a candidate, how it reads, and how it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from erv.settings.register import EVERY, JUDGED

CHAMPION = "champion"
PASS: Final = "pass"  # noqa: S105
FAIL: Final = "fail"
CANT_TELL: Final = "can't tell"
OPEN: Final = "open"
Outcome = Literal["pass", "fail", "can't tell", "open"]
WORST_FIRST: tuple[Outcome, ...] = (FAIL, CANT_TELL, OPEN, PASS)
LINEAGE = "lineage"  # of a version: whether every link behind it holds
SERVING_CODE = "serving code"  # of a version: whether what answers is in a commit
WITHDRAWN = "withdrawn clips"  # of a version: whether it learned from one, or was tuned on it
_DIGITS, _MOST_DIGITS = 4, 9  # decimals of figures in a text


@dataclass(frozen=True)
class Verdict:
    """One gate and how it was decided.

    Attributes:
        metric: what is measured, over all clips.
        against: the policy it is compared with, `champion`, or None for the metric itself.
        minimum: what the lower end must reach, or exceed where there is an `against`; None with a maximum.
        low, high: the interval; None while undecided or where nothing could be measured.
        outcome: `pass`, `fail`, `can't tell`, or `open` while undecided (a gate against the champion is
            decided when publishing).
        reason: why it could not be measured, if it couldn't.
        maximum: what the upper end must not exceed, or stay below where there is an `against`.
        judge: whose reading counts: a judge, `majority`, `every` for all worthy judges (then the interval is
            that of the least favourable one), or None for the headline judge.
        opponent: the version it was compared with, of a gate against the champion; None if it wasn't.
        confidence: level of the interval, such as 0.95, or of a gate against the champion that could not be
            measured; None without an interval of ours, or in a verdict that did not record it.
        samples, seed: of the bootstrap draws of a gate against the champion; None of others, or if they were
            not recorded.
        machine: the one on which a lineage was looked at; None of others, or if it was not recorded.
        study: whose raters decide a gate on what people prefer; None of others.
        rules: by which raters of the study were left out; None of others, and while undecided.
    """

    metric: str
    against: str | None = None
    minimum: float | None = None
    low: float | None = None
    high: float | None = None
    outcome: Outcome = OPEN
    reason: str = ""
    maximum: float | None = None
    judge: str | None = None
    opponent: str | None = None
    confidence: float | None = None
    samples: int | None = None
    seed: int | None = None
    machine: str | None = None
    study: str | None = None
    rules: str | None = None

    @property
    def value(self) -> float | None:
        """The end of the interval that decides."""
        return self.low if self.maximum is None else self.high

    @property
    def passed(self) -> bool:
        """Whether it lets a candidate become champion; an open one doesn't yet."""
        return self.outcome == PASS

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided."""
        return self.outcome == OPEN

    @property
    def is_judged(self) -> bool:
        """Whether the reading of a judge decides the metric."""
        return self.metric in JUDGED

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without what is optional and not there, such as `maximum` or `opponent`."""
        optional = {"minimum", "maximum", "judge", "opponent", "confidence", "samples", "seed", "machine"}
        optional |= {"study", "rules"}
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}

    def text(self) -> str:
        """`pass: EPC minus r1_omni (judge embedding) +0.1200 to +0.3000 (95%), needs more than +0.0000`.

        Figures have four decimals, or as many more as it takes that they don't contradict the outcome.
        """
        what = self.metric if self.against is None else f"{self.metric} minus {self.against}"
        if self.study is not None:
            what = f"{self.metric} over {self.against} (study {self.study})"
        if self.opponent is not None:
            what += f" (version {self.opponent})"
        if self.judge is not None:
            what += " (every worthy judge)" if self.judge == EVERY else f" (judge {self.judge})"
        found = f"{what} {self._interval}" if self.value is not None else f"{what}: {self.reason or OPEN}"
        # What it would need says nothing where nothing was measured.
        told = self.outcome != CANT_TELL or self.value is not None
        needs = f", needs {self._needs}" if self._needs and told else ""
        return f"{self.outcome}: {found}{needs}" + (f"; {self.rules}" if self.rules else "")

    @property
    def _sign(self) -> str:
        return "" if self.against is None else "+"

    @property
    def _interval(self) -> str:
        digits = self._digits
        ends = dict.fromkeys(f"{end:{self._sign}.{digits}f}" for end in (self.low, self.high))
        level = "" if self.confidence is None else f" ({100 * self.confidence:g}%)"
        return " to ".join(ends) + level

    @property
    def _bound(self) -> float | None:
        return self.minimum if self.maximum is None else self.maximum

    @property
    def _needs(self) -> str:
        """What the deciding end must be; empty for a gate without a bound."""
        if self._bound is None:
            return ""
        least = f"{self._bound:{self._sign}.{self._digits}f}"
        if self.maximum is None:
            return f"{least} or more" if self.against is None else f"more than {least}"
        return f"{least} or less" if self.against is None else f"less than {least}"

    @property
    def _digits(self) -> int:
        """The fewest decimals with which both ends are on the same side of the bound as in truth."""
        ends = [end for end in (self.low, self.high) if end is not None]

        def sides(digits: int) -> list[tuple[bool, bool]]:
            bound = round(self._bound or 0.0, digits)
            return [(round(end, digits) < bound, round(end, digits) > bound) for end in ends]

        exact = sides(_MOST_DIGITS)
        return next((n for n in range(_DIGITS, _MOST_DIGITS) if sides(n) == exact), _MOST_DIGITS)


def read_verdict(item: Mapping[str, Any]) -> Verdict:
    """A verdict from JSON, also one as versions before this form have it: the deciding end, and `passed`."""
    if "outcome" in item:
        return Verdict(**item)
    kept = {key: item[key] for key in ("metric", "against", "minimum", "maximum", "judge") if key in item}
    outcome: Outcome = OPEN if item["passed"] is None else PASS if item["passed"] else FAIL
    end = item["value"]
    return Verdict(**kept, low=end, high=end, outcome=outcome, reason=item.get("reason", ""))


def nothing_withdrawn(_number: str) -> Sequence[Verdict]:
    """What a list of withdrawn clips has against a version, where nobody keeps one."""
    return ()


def tells_a_verdict(sentence: str) -> bool:
    """Whether a sentence is the text of a verdict, and not why there is none."""
    return any(sentence.startswith(f"{outcome}: ") for outcome in WORST_FIRST)


def gate_of(verdict: Verdict) -> tuple[object, ...]:
    """Which gate a verdict is on: equal for verdicts on the same one."""
    return verdict.metric, verdict.against, verdict.minimum, verdict.maximum, verdict.judge, verdict.study
