"""The section `machine`: how this machine does the work.

No stage depends on anything in here (`dvc.yaml` never lists it), and it is in no checkpoint's key. Most of it
can't change a result at all. Three parameters of training can, within what the same training may give:

- `rows_per_pass` decides in which order the gradients of a step are added up, which moves last bits. A run
  may go on from a checkpoint with another value, as it must after it ran out of memory.
- `accelerate` and `processes` do so too, and each process has random numbers of its own, so that GRPO samples
  other completions. A checkpoint holds the state of each process: it lies in a folder named by `layout`, and
  only the same layout goes on from it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from erv.settings.section import PositiveFloat, PositiveInt, Section

_SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def _address_of_a_scheduler(address: str) -> str:
    match = _SCHEDULER.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise ValueError(
            "not an address of a Dask scheduler; expected tcp://host:port or tls://host:port, or null"
        )
    return address


SchedulerAddress = Annotated[str, AfterValidator(_address_of_a_scheduler)]


class ValidateMachine(Section):
    """`machine.validate`: processes that look into clips."""

    workers: PositiveInt


class ExtractMachine(Section):
    """`machine.extract`: processes that decode clips, and the Dask cluster that has them, if any."""

    workers: PositiveInt
    dask: SchedulerAddress | None


class SftMachine(Section):
    """`machine.sft`: clips that go through the model at once; None: all of a batch."""

    rows_per_pass: PositiveInt | None


class GrpoMachine(Section):
    """`machine.grpo`: completions that go through the model at once, and steps between two tables of samples.

    Attributes:
        rows_per_pass: None for all of a step.
        sample_steps: the last step has a table too.
    """

    rows_per_pass: PositiveInt | None
    sample_steps: PositiveInt


class MachineSettings(Section):
    """Processes, memory, and what is shown meanwhile.

    Attributes:
        accelerate: configuration of `infra/accelerate/` that sft and grpo run under; None: one process.
        processes: of a training stage under `accelerate`, one per GPU.
        feature_cache_gb: memory per process for what the frozen towers made of clips.
    """

    accelerate: Literal["ddp", "fsdp", "zero2", "zero3"] | None
    processes: PositiveInt
    feature_cache_gb: PositiveFloat
    validate_: Annotated[ValidateMachine, Field(alias="validate")]
    extract: ExtractMachine
    sft: SftMachine
    grpo: GrpoMachine

    @model_validator(mode="after")
    def _several_processes_are_launched(self) -> MachineSettings:
        if self.processes > 1 and self.accelerate is None:
            raise ValueError(
                f"processes is {self.processes}, but accelerate is null; name a configuration of"
                " infra/accelerate (ddp, fsdp, zero2 or zero3)"
            )
        return self

    @property
    def layout(self) -> str:
        """Which processes hold what of a training run, as the name of a folder: `one`, `ddp-2`.

        A checkpoint can be read under the layout that wrote it and under no other.
        """
        return "one" if self.accelerate is None else f"{self.accelerate}-{self.processes}"
