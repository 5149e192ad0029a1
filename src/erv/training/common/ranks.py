"""Several processes that train one policy: how a stage starts them, and which one logs and writes.

A training stage whose `machine.accelerate` names a configuration becomes `accelerate launch`, which starts
the same stage once per process. The first of them, rank 0, has the MLflow run, the log and the outputs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from erv.errors import SettingsError
from erv.settings import MachineSettings, RuntimeSettings

CONFIGURATIONS = Path("infra/accelerate")
_LAUNCHED = "ERV_LAUNCHED"
_LAUNCHER = "accelerate.commands.launch"


def is_launched() -> bool:
    """Whether `launch` started this process."""
    return _LAUNCHED in os.environ


def is_main() -> bool:
    """Whether this process logs and writes: it is rank 0, or the only process."""
    return not is_launched() or os.environ.get("RANK", "0") == "0"


def launch_command(
    module: str,
    arguments: Sequence[str],
    runtime: RuntimeSettings,
    machine: MachineSettings,
    workspace: Path,
) -> list[str]:
    """The command that runs a module once per process.

    Args:
        module: `stages.grpo`.
        arguments: its command line.
        runtime: precision, and threads of each process.
        machine: names the configuration and the number of processes.
        workspace: the top of the repository.

    Raises:
        SettingsError: the configuration does not exist.
    """
    configuration = workspace / CONFIGURATIONS / f"{machine.accelerate}.yaml"
    if not configuration.is_file():
        raise SettingsError(
            f"{configuration}: not found, but machine.accelerate is {machine.accelerate};"
            " take the file from the repository or set machine.accelerate: null"
        )
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[runtime.dtype]
    options = {
        "config_file": str(configuration),
        "num_processes": str(machine.processes),
        "num_machines": "1",
        "mixed_precision": precision,
        "num_cpu_threads_per_process": str(runtime.threads),
        "main_process_port": "0",  # any free one
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", _LAUNCHER, *flags, "--module", module, *arguments]


def launch(
    module: str,
    arguments: Sequence[str],
    runtime: RuntimeSettings,
    machine: MachineSettings,
    workspace: Path,
) -> NoReturn:
    """Becomes `accelerate launch` of a module, so that signals and the exit code are those of the launch.

    Raises:
        SettingsError: the configuration does not exist, or needs a GPU and there is none.
    """
    from erv.determinism import resolve_device

    if machine.accelerate != "ddp" and resolve_device(runtime.device).type == "cpu":
        raise SettingsError(
            f"machine.accelerate is {machine.accelerate}, which needs GPUs; on a CPU use ddp or null"
        )
    command = launch_command(module, arguments, runtime, machine, workspace)
    os.execve(command[0], command, os.environ | {_LAUNCHED: "1"})  # noqa: S606


def one_gpu_each(stage: str, count: int) -> None:
    """Refuses several GPUs in one process, since `transformers` would split batches over them.

    Args:
        stage: the stage's name, for the message.
        count: number of GPUs that the process sees.

    Raises:
        SettingsError: `count` is above one.
    """
    if count > 1:
        raise SettingsError(
            f"{stage}: {count} GPUs are visible to one process; set machine.accelerate and"
            " machine.processes to use them, or CUDA_VISIBLE_DEVICES to use one"
        )


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a lock, for work that every process of the launch does but only one at a time may do.

    Args:
        path: the file or folder to protect; the lock file is next to it.
    """
    if not is_launched():
        yield
        return
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield
