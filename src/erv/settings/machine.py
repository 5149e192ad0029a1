"""The section `machine`: how this machine does the work.

No stage depends on this section (`dvc.yaml` never lists it), and it is part of no checkpoint's key. Most
parameters can't change a result at all. Four training parameters can, but only as rounding or another seed
would:

- `grpo.static_decode` changes the rounding of logits in generation, so that now and then another token is
  drawn. A run may resume with another value.
- `rows_per_pass` decides in which order the gradients of a step are added up, which changes their rounding.
  With `lora.dropout` above 0, each pass draws masks of its own. A run may resume from a checkpoint with
  another value, as it must after it ran out of memory. A loss that averages over a pass (`bnpo`) is refused
  with it.
- `accelerate` and `processes` affect that order too. Each process also has its own random numbers, so GRPO
  samples other completions. A checkpoint holds the state of each process: it is kept in a folder named after
  `layout`, and only the same layout can resume from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from erv.settings.pool_name import PoolName
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


def _root(folder: str) -> str:
    path = PurePosixPath(folder)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise ValueError("not a folder for links to lead to; expected an absolute path below /, without ..")
    return folder


Root = Annotated[str, AfterValidator(_root)]


class ValidateMachine(Section):
    """`machine.validate`: processes that probe clips."""

    workers: PositiveInt


class ExtractMachine(Section):
    """`machine.extract`: processes that decode clips, and the Dask cluster that runs them, if any."""

    workers: PositiveInt
    dask: SchedulerAddress | None


class SftMachine(Section):
    """`machine.sft`: memory and checkpoints.

    Attributes:
        rows_per_pass: clips per forward pass; None for the whole batch.
        save_steps: steps between checkpoints.
    """

    rows_per_pass: PositiveInt | None
    save_steps: PositiveInt


class GrpoMachine(Section):
    """`machine.grpo`: completions per forward pass, checkpoints, and how often samples are shown.

    Attributes:
        rows_per_pass: completions per forward pass; None for the whole step.
        save_steps: steps between checkpoints, a multiple of `grpo.num_iterations`.
        sample_steps: steps between tables of sample completions; the last step has one too.
        static_decode: whether grpo generates with a cache of fixed size, on a GPU as a CUDA graph.
        vllm_python: interpreter of the environment that vLLM is installed in, for `grpo.generation: vllm`.
        vllm_memory: share of the GPU's memory that vLLM takes while it generates.
        validate_steps: steps between measurements on validation clips, as `erv sweep` sets it; None for none.
        validate_clips: how many of these clips are asked about.
    """

    rows_per_pass: PositiveInt | None
    save_steps: PositiveInt
    sample_steps: PositiveInt
    static_decode: bool = False
    vllm_python: Annotated[str, Field(min_length=1)] = ".venv-vllm/bin/python"
    vllm_memory: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    validate_steps: PositiveInt | None = None
    validate_clips: PositiveInt = 128


# The steps that run under `accelerate`.
LAUNCHED = ("sft", "grpo")


class EvaluateMachine(Section):
    """`machine.evaluate`: processes that generate, and the disk space for what the towers made of clips.

    Attributes:
        processes: processes that share the clips, one per GPU; their number changes no completion.
        features_gb: the frozen towers' outputs kept for the other policies of a run, in GB; 0 keeps none.
    """

    processes: PositiveInt
    features_gb: Annotated[float, Field(ge=0.0)]


class MachineSettings(Section):
    """Processes, memory, and checkpoints and samples during training.

    Attributes:
        accelerate: configuration in `infra/accelerate/` that sft and grpo run under; None for one process.
        processes: number of processes of a training stage under `accelerate`, one per GPU.
        allowed_roots: absolute folders outside the local sources that links in them may lead to. Pinning
            checks it where a link ends. None by default. It counts for the folders of `erv predict`, too.
        feature_cache_gb: memory per process for the frozen towers' outputs, in GB.
        placement: work pool of Prefect by stage (`grpo@erv`) or step (`grpo`): those run on its workers.
        carry_changes: whether uncommitted changes go along with a placed stage, as a patch on record.
        placement_wait_minutes: how long a placed stage waits while no worker serves its pool.
        placement_spare: slots of a work pool that sweeps leave to other runs.
        price_per_hour: what an hour of this machine costs, in any currency, for `erv run --dry`; None if
            nobody asks.
    """

    accelerate: Literal["ddp", "fsdp", "zero2", "zero3"] | None
    processes: PositiveInt
    allowed_roots: tuple[Root, ...] = ()
    feature_cache_gb: PositiveFloat
    placement: dict[str, PoolName] = Field(default_factory=dict)
    carry_changes: bool = False
    placement_wait_minutes: PositiveFloat = 60.0
    placement_spare: Annotated[int, Field(ge=0)] = 1
    price_per_hour: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    validate_: Annotated[ValidateMachine, Field(alias="validate")]
    extract: ExtractMachine
    sft: SftMachine
    grpo: GrpoMachine
    evaluate: EvaluateMachine

    @model_validator(mode="after")
    def _several_processes_are_launched(self) -> MachineSettings:
        if self.processes > 1 and self.accelerate is None:
            raise ValueError(
                f"processes is {self.processes}, but accelerate is null; name a configuration in"
                " infra/accelerate (ddp, fsdp, zero2 or zero3)"
            )
        return self

    @model_validator(mode="after")
    def _whole_weights_in_a_graph(self) -> MachineSettings:
        if self.grpo.static_decode and self.accelerate in ("fsdp", "zero3"):
            raise ValueError(
                "grpo.static_decode needs whole weights in each process, but accelerate is"
                f" {self.accelerate}; set static_decode: false, or accelerate to ddp or null"
            )
        return self

    def pool_of(self, stage: str) -> str | None:
        """The work pool that a stage is placed in; None if it runs here.

        Args:
            stage: as `dvc.yaml` names it, such as `grpo@erv`.
        """
        return pool_for(stage, self.placement)

    def processes_of(self, stage: str) -> int:
        """How many processes, each with a GPU of its own, a stage spreads over.

        Args:
            stage: as `dvc.yaml` names it, such as `grpo@erv`.
        """
        step = stage.partition("@")[0]
        if step == "evaluate":
            return self.evaluate.processes
        return self.processes if step in LAUNCHED else 1

    @property
    def layout(self) -> str:
        """How a training run is spread over processes, as a folder name: `one`, `ddp-2`.

        A checkpoint can be read only under the layout that wrote it.
        """
        return "one" if self.accelerate is None else f"{self.accelerate}-{self.processes}"


def pool_for(stage: str, placement: Mapping[str, str]) -> str | None:
    """The work pool of a stage; None if it runs here.

    Args:
        stage: as `dvc.yaml` names it; it counts before its step, `grpo@erv` before `grpo`.
        placement: `machine.placement`.
    """
    return placement.get(stage, placement.get(stage.partition("@")[0]))
