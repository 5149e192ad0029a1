"""After each step of GRPO: samples for people to look at, and the end of a training that learns nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from erv.rewards.explanation import Shaping
from erv.settings import GrpoSettings
from erv.training.grpo.collapse import CollapseAlarm, Diverged, Outlook
from erv.training.grpo.generation import Generation, last_generation
from erv.training.grpo.samples import SampleTable, take_samples
from erv.verifier.base import Verifier

if TYPE_CHECKING:
    from erv.training.grpo.trainer import OmniGRPOTrainer

logger = logging.getLogger(__name__)

OnSamples = Callable[[SampleTable], None]


class RolloutWatcher(TrainerCallback):
    """Hands samples out every so many steps and at the end; ends training that has nothing to learn from.

    All processes see the same completions and so decide alike; the main one alone hands samples out.
    """

    def __init__(
        self,
        trainer: OmniGRPOTrainer,
        collapse: CollapseAlarm,
        on_samples: OnSamples | None,
        verifier: Verifier | None,
        settings: GrpoSettings,
        *,
        sample_steps: int,
    ) -> None:
        """Takes the trainer, the alarm, what gets the samples, who reads them, and the section `grpo`.

        Samples are handed out every `sample_steps` steps.
        """
        self._trainer = trainer
        self._collapse = collapse
        self._on_samples = on_samples
        self._verifier = verifier
        self._settings = settings
        self._sample_steps = sample_steps

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Looks at the newest completions.

        Raises:
            Diverged: no group has differed in its reward for `patience` steps, and it is not the most that
                there is to earn.
        """
        if not logs or "loss" not in logs:
            return  # the summary at the end
        step = state.global_step
        generation = last_generation(self._trainer)
        outlook = self._collapse.update(step, generation)
        ends = outlook is not Outlook.LEARNS or step == state.max_steps
        if state.is_world_process_zero and (ends or step % self._sample_steps == 0):
            self._show(step, generation)
        if outlook is Outlook.COLLAPSED:
            raise Diverged(self._collapse.describe(step, generation))
        if outlook is Outlook.SOLVED:
            logger.info(
                "grpo step %d: for %d steps every completion has earned the most there is;"
                " nothing is left to learn, and training ends here",
                step,
                self._collapse.patience,
            )
            control.should_training_stop = True
            control.should_save = (
                False  # a checkpoint is to go on from; this end is reached from the last one
            )

    def _show(self, step: int, generation: Generation) -> None:
        if self._on_samples is not None:
            shaping = Shaping(**self._settings.shaping.model_dump())
            semantics = self._settings.semantics
            self._on_samples(
                take_samples(step, generation, self._verifier, semantics=semantics, shaping=shaping)
            )
