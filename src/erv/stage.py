"""What all stages share: arguments, settings, environment, MLflow run, errors in one sentence.

A stage script contains only what is specific to it and ends with `run_stage(name, main, Option(...), ...)`.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from erv.collector import collect_seldom
from erv.determinism import prepare_process
from erv.environment import Environment, isolate, keep_private, load_environment
from erv.errors import ErvError, full_disk
from erv.libraries import TAG, lock_of, require_locked
from erv.settings import Settings, load_settings
from erv.stack.one_origin import check_servers
from erv.tracking.opening import PLACED_VARIABLE, SENT_VARIABLE, open_run
from erv.tracking.run import StageRun
from erv.training.common import ranks

__all__ = ["Arguments", "Option", "StageRun", "run_stage"]

Arguments = argparse.Namespace
Main = Callable[[Arguments, Settings, StageRun], None]

NEEDED_BYTES = 500_000_000
# The option whose value distinguishes one matrix stage from its siblings, as in `grpo@erv`.
_MATRIX_OPTIONS = ("dataset", "variant", "name")
# Stages that load a policy: device, precision and libraries decide what they write.
_WITH_POLICY = ("sft", "rollouts", "grpo", "evaluate", "controls")

logger = logging.getLogger("erv.stage")


@dataclass(frozen=True)
class Option:
    """A required command line option of a stage.

    Attributes:
        name: without the dashes.
        kind: str or Path.
    """

    name: str
    kind: type = str


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that no `except Exception` mistakes it for a failure."""


def run_stage(name: str, main: Main, *options: Option, distributed: bool = False) -> NoReturn:
    """Runs a stage and ends the process: 0, the error's code, 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        name: of the stage.
        main: what it does.
        *options: its command line.
        distributed: it trains, and may do so in the processes that `machine.accelerate` asks for.
    """
    arguments = _parse(name, options)
    collect_seldom()
    sys.exit(_run(name, main, arguments, distributed))


def _parse(name: str, options: tuple[Option, ...]) -> Arguments:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", allow_abbrev=False)
    for option in options:
        parser.add_argument(f"--{option.name}", type=option.kind, required=True)
    return parser.parse_args()


def _run(name: str, main: Main, arguments: Arguments, distributed: bool) -> int:
    address = _address(name, arguments)
    environment = _workspace_environment()
    if environment is None:
        return 1
    configure_logging(environment)
    run: StageRun | None = None
    started = time.monotonic()
    stop_on_signals()
    try:
        from erv.pipeline.process import die_with_parent, set_parent_death_signal

        die_with_parent()
        if ranks.is_launched():
            set_parent_death_signal()  # the launcher starts each process in its own session
        if ranks.is_main():
            # DVC writes its lock, in place, when this process has ended.
            from erv.pipeline.lock_file import keep_lock

            keep_lock(environment.workspace)
        settings = load_settings(environment.workspace / "params.yaml")
        _refuse_elsewhere(address, settings)
        _prepare(address, settings)
        others = require_locked(environment.workspace, settings.runtime.python) if ranks.is_main() else ""
        if not ranks.is_launched():
            check_servers(environment, ("MLflow",))
            # DVC trusts size and time of a file: what changed under the same two would be read in silence.
            damaged = _damaged_input(address, arguments, environment)
            if damaged is not None:
                raise ErvError(damaged)
        if distributed and settings.machine.accelerate and not ranks.is_launched():
            ranks.launch(
                f"stages.{name}", sys.argv[1:], settings.runtime, settings.machine, environment.workspace
            )
        run = open_run(environment, name, address, silent=not ranks.is_main())
        run.log_params(_parameters(name, arguments, settings))
        if others:
            lock = lock_of(settings.runtime.python)
            logger.warning("works with other libraries than those of %s: %s", lock, others)
            run.set_tags({TAG: others})
        main(arguments, settings, run)
        run.set_tags(_ran(name, arguments, settings))
    except ErvError as error:
        sentence = environment.mask(full_disk(error) or str(error))
        _close(run, "FAILED", started, sentence)
        return _fail(address, sentence, error.exit_code)
    except (Stopped, KeyboardInterrupt) as stop:
        # Whoever stopped us may soon kill us: a second signal must not interrupt the cleanup.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _close(run, "KILLED", started)
        code = 143 if isinstance(stop, Stopped) else 130
        return _fail(address, "stopped before it finished; run it again to resume", code)
    except SystemExit:
        _close(run, "FAILED", started)
        raise
    except Exception as error:
        full = full_disk(error)
        if full is None:
            logger.exception("%s failed because of a bug in erv; please report it", address)
        _close(run, "FAILED", started, full or f"{type(error).__name__}: {error}")
        return 1 if full is None else _fail(address, full, 1)
    _close(run, "FINISHED", started)
    return 0


def _refuse_elsewhere(address: str, settings: Settings) -> None:
    pool = os.environ.get(SENT_VARIABLE) or settings.machine.pool_of(address)
    # A worker names its own pool, which a run may have been given in place of that in the file.
    if pool is not None and not os.environ.get(PLACED_VARIABLE):
        raise ErvError(
            f"its placement sends this stage to work pool {pool!r}, so it doesn't run here; `erv run"
            f" {address}` sends it, {PLACED_VARIABLE}={pool} runs it here this once (`dvc checkout` brings"
            " back outputs that DVC has removed)"
        )


def _workspace_environment() -> Environment | None:
    try:
        environment = load_environment()
        keep_private(environment)
    except ErvError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return None
    isolate(environment)
    return environment


def _damaged_input(address: str, arguments: Arguments, environment: Environment) -> str | None:
    """Which input is not what `dvc.lock` says that another stage wrote; None if all are, or nobody knows."""
    from erv.pipeline.lock_file import KEPT, NAME

    # The copy is always whole, but may be older than the lock, which another stage may just be rewriting.
    found = _damaged_by(environment.workspace / KEPT, address, arguments, environment)
    return found and _damaged_by(environment.workspace / NAME, address, arguments, environment)


def _damaged_by(lock: Path, address: str, arguments: Arguments, environment: Environment) -> str | None:
    from erv.pipeline.lock_file import read_lock_entries
    from erv.pipeline.restored import damaged_outputs

    try:
        entries = read_lock_entries(lock)
    except ErvError:
        return None
    given = [value for value in vars(arguments).values() if isinstance(value, Path) and value.exists()]
    for producer, entry in sorted(entries.items()):
        outs = [
            out
            for out in entry.get("outs") or []
            if producer != address
            and any(_overlap(Path(out["path"]), path) for path in given)
            and (environment.workspace / out["path"]).exists()
        ]
        damaged = damaged_outputs({"outs": outs}, environment.workspace)
        if damaged:
            return (
                f"{damaged[0]}: not what {producer} wrote; delete it and run `erv run {producer}`, or keep"
                f" the change with `dvc commit {producer}`"
            )
    return None


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _address(name: str, arguments: Arguments) -> str:
    """As `dvc.yaml` addresses the stage: DVC says it; without DVC it follows from the arguments."""
    said = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    if said.partition("@")[0] == name:
        return said
    for option in _MATRIX_OPTIONS:
        value = getattr(arguments, option, None)
        if isinstance(value, str):
            return f"{name}@{value}"
    return name


def _prepare(address: str, settings: Settings) -> None:
    """Checks disk space, sets threads and seeds. Threads must be set before a numeric library is loaded."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < NEEDED_BYTES:
        raise ErvError(
            f"only {free // 1_000_000} MB are free on the disk of {Path.cwd().name}, "
            f"{NEEDED_BYTES // 1_000_000} MB are needed; make room and run {address} again"
        )
    prepare_process(settings.seed, settings.runtime.threads)


def _parameters(name: str, arguments: Arguments, settings: Settings) -> dict[str, Any]:
    """The stage's own section and those of all stages; of the variants only the one that runs."""
    everything = settings.model_dump(by_alias=True)
    found = {"seed": settings.seed, name: everything.get(name, {})}
    found |= {section: everything[section] for section in ("runtime", "machine", "roles")}
    variant = getattr(arguments, "variant", None)
    if variant is not None:
        found["variants"] = {variant: everything["variants"].get(variant, {})}
    return found


def _ran(name: str, arguments: Arguments, settings: Settings) -> dict[str, str]:
    """What a stage that loads a policy ran with: what `auto` was, and what is installed."""
    if name not in _WITH_POLICY or not ranks.is_main():
        return {}
    from erv.determinism import resolve_device, resolve_dtype
    from erv.tracking.ran import policy_tags, ran_tags

    device = resolve_device(settings.runtime.device)
    dtype = resolve_dtype(settings.runtime.dtype, device)
    tags = ran_tags(device.type, str(dtype).removeprefix("torch."))
    folder = getattr(arguments, "policy", None)
    return tags | policy_tags(folder) if isinstance(folder, Path) else tags


def _close(run: StageRun | None, status: Any, started: float, message: str = "") -> None:
    if run is None:
        return
    measured = {"stage/seconds": time.monotonic() - started}
    try:
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        measured["stage/peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
    except ImportError:  # not a POSIX system
        pass
    run.log_metrics(measured)
    run.close(status, message)


def _fail(address: str, sentence: str, code: int) -> int:
    print(f"error: {address}: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def stop_on_signals() -> None:
    """From now on SIGTERM raises Stopped, and neither it nor Ctrl-C is lost.

    Python only reports what is raised in a finalizer or in a callback of a weak reference, wherever a signal
    happens to arrive; then it is sent again a little later.
    """
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _send_again


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def _send_again(dropped: sys.UnraisableHookArgs) -> None:
    signals = {Stopped: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
    lost = signals.get(dropped.exc_type)
    if lost is None:
        sys.__unraisablehook__(dropped)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), lost))
    again.daemon = True
    again.start()


class _Masked(logging.Formatter):
    """Formats plain lines and masks secrets."""

    def __init__(self, environment: Environment) -> None:
        super().__init__("%(levelname)s %(message)s")
        self._environment = environment

    def format(self, record: logging.LogRecord) -> str:
        return self._environment.mask(super().format(record))


def configure_logging(environment: Environment) -> None:
    """Logs to standard error: our own messages from INFO up, those of libraries from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masked(environment))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    if ranks.is_main():  # the other processes would log the same
        for ours in ("erv", "stages", "flows", "__main__"):
            logging.getLogger(ours).setLevel(logging.INFO)
    # It warns of every retry; erv.tracking.outbox reports once what matters.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
