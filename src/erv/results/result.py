"""A result: the figures of one policy on one data set, with the setting that decided them, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from erv.files import sha256_of_text

METRICS = ("WAR", "UAR", "EEA", "EPC", "FCR")
UNKNOWN = "unknown"  # it decided the result, and nothing says what it was
NOT_APPLICABLE = "doesn't apply"  # nothing of the kind decided the result
NOT_STATED = "not stated"  # by whoever published the figures


@dataclass(frozen=True)
class Figure:
    """A metric with its interval, shares from 0 to 1.

    Attributes:
        value: None if the metric is not defined, or nothing says what it was.
        low, high: None if no interval is known.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """The figures of one policy on one data set.

    Attributes:
        policy: its name.
        dataset: `overall` or a data set.
        setting: what decided the figures, by the keys of `erv.results.items`, in words.
        record: what says where it was made: commit, lock entry, runs; decides nothing.
        figures: by metric; one that is absent doesn't apply to the policy.
        clips: how many were tested; None if nothing says so.
        remarks: sentences on what is unknown, and why.
        complete: whether all that decided the result is recorded; a key that a complete setting lacks doesn't
            apply, and one that another lacks is unknown.
        published: whether somebody else published it.
        identity: what makes it another result than others of its policy and data set: the hash of its lock
            entry, where there is none the MLflow run that measured it, or the source that published it.
    """

    policy: str
    dataset: str
    setting: Mapping[str, str] = field(hash=False)
    record: Mapping[str, str] = field(hash=False)
    figures: Mapping[str, Figure] = field(hash=False)
    clips: int | None = None
    remarks: tuple[str, ...] = ()
    complete: bool = True
    published: bool = False
    identity: str = field(kw_only=True)

    @property
    def key(self) -> str:
        """Eight digits that stand for it; the same for the same result, wherever and whenever it is gathered.

        Its record decides none of them: a commit, or an outage of MLflow, changes what that says.
        """
        return sha256_of_text("\n".join([self.policy, self.dataset, self.identity]))[:8]

    def get(self, key: str) -> str:
        """What its setting says under a key, or why it says nothing."""
        return self.setting.get(key, self._without(key))

    def _without(self, key: str) -> str:
        if self.published:
            return NOT_STATED
        return NOT_APPLICABLE if self.complete else UNKNOWN

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "key": self.key,
            "policy": self.policy,
            "dataset": self.dataset,
            "published": self.published,
            "clips": self.clips,
            "figures": {
                name: {"value": figure.value, "low": figure.low, "high": figure.high}
                for name, figure in self.figures.items()
            },
            "complete": self.complete,
            "setting": dict(self.setting),
            "record": dict(self.record),
            "remarks": list(self.remarks),
        }
