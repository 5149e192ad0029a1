"""Which stages a run is about: targets with what they need, or one stage alone; and which are forced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erv import pipeline
from erv.pipeline import PipelineError, PipelineStage, TargetError, Unchanged


@dataclass(frozen=True)
class Wanted:
    """The parameters of the flow that select stages; see `flows.train.train`."""

    targets: list[str] | None = None
    force: bool = False
    only: str | None = None

    @property
    def names(self) -> list[str]:
        """What was asked for; nothing for all stages."""
        return [self.only] if self.only is not None else self.targets or []

    def check(self) -> None:
        """Refuses names that mean no stage before a flow begins, whose failure everybody would be told of.

        Any other fault is left to the flow: DVC may just be writing dvc.lock, which the flow mends or says.

        Raises:
            TargetError: as `needed`.
        """
        if not self.names:
            return
        try:
            self.needed(pipeline.read_stages())
        except TargetError:
            raise
        except PipelineError:
            return

    def needed(self, everything: Sequence[PipelineStage]) -> tuple[PipelineStage, ...]:
        """What was named and all that it needs, in the order of `everything`.

        Raises:
            TargetError: a name means no stage, `only` means several, or there are targets beside it.
        """
        if self.only is None:
            return pipeline.select(everything, self.targets)
        if self.targets:
            raise TargetError(f"only={self.only} and targets {', '.join(self.targets)}: give one of the two")
        return pipeline.select(everything, [pipeline.one_stage(everything, self.only).name])

    def forced(self, everything: Sequence[PipelineStage]) -> frozenset[str]:
        """The stages that run even if nothing changed: those that were named, not what they need."""
        if not self.force:
            return frozenset()
        return pipeline.named(everything, self.targets if self.only is None else [self.only])

    def to_run(self, needed: tuple[PipelineStage, ...], unchanged: Unchanged) -> tuple[PipelineStage, ...]:
        """The stages to go through.

        Args:
            needed: from `needed`.
            unchanged: what DVC says of them.

        Raises:
            PipelineError: what the only stage reads is missing or out of date.
        """
        if self.only is None:
            return needed
        stage = pipeline.one_stage(needed, self.only)
        pipeline.check_inputs(stage, needed, unchanged)
        return (stage,)
