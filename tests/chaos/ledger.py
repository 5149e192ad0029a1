"""Counts what faults did: nothing, a clear error, or damage."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

# What must never happen. A process that outlives its pipeline counts as duplicated: it may write twice.
DAMAGE = ("lost", "duplicated", "silently wrong", "unclear")
SCENES = (
    "kill a stage",
    "kill at the lock",
    "kill a flow",
    "kill a server",
    "S3 faults",
    "full disk",
    "damaged cache",
    "damaged remote",
    "damaged checkpoint",
    "damaged shard",
    "clock jump",
    "two at once",
)


@dataclass
class Ledger:
    """The counts, by scene.

    Attributes:
        counts: by scene and kind: runs (commands), faults, kills and the four kinds of damage.
        findings: a sentence for each damage.
        trials: outcome lines, for the log.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {scene: Counter() for scene in SCENES})
    findings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, scene: str, kind: str, number: int = 1) -> None:
        """Counts a run, a fault or a kill."""
        self.counts[scene][kind] += number

    def damage(self, scene: str, kind: str, sentence: str) -> None:
        """Counts damage, with the sentence that describes it."""
        assert kind in DAMAGE, kind
        self.counts[scene][kind] += 1
        self.findings.append(f"{scene}: {kind}: {sentence}")
        self.say(f"FOUND {scene}: {kind}: {sentence}")

    def say(self, line: str) -> None:
        """Prints a line of progress with the minutes since the start."""
        print(f"[{(time.monotonic() - self.started) / 60:5.1f} min] {line}", flush=True)

    def total(self, kind: str) -> int:
        """The count of one kind over all scenes."""
        return sum(counts[kind] for counts in self.counts.values())

    def failures(self, kills: int) -> list[str]:
        """Why the run failed; nothing if it passed.

        Args:
            kills: how many processes must have been killed.
        """
        reasons = [f"{self.total(kind)} {kind}" for kind in DAMAGE if self.total(kind)]
        reasons += [f"{scene}: never tried" for scene in SCENES if not self.counts[scene]["faults"]]
        if self.total("kills") < kills:
            reasons.append(f"only {self.total('kills')} of {kills} kills were made")
        return reasons

    def table(self) -> str:
        """The counts as a table, one line per scene."""
        kinds = ("runs", "faults", "kills", *DAMAGE)
        width = max(len(scene) for scene in SCENES)
        lines = [" ".join([" " * width, *(f"{kind:>14}" for kind in kinds)])]
        for scene in SCENES:
            numbers = (f"{self.counts[scene][kind]:>14}" for kind in kinds)
            lines.append(" ".join([f"{scene:<{width}}", *numbers]))
        lines.append(" ".join([f"{'all':<{width}}", *(f"{self.total(kind):>14}" for kind in kinds)]))
        return "\n".join([*lines, *self.findings])
