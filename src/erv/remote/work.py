"""The worker's side: brings the commit, the inputs and the checkpoints here, runs the stage, sends the entry.

What it runs is the code of the commit, in a checkout of its own, below the guard that ends every process of a
stage. What goes wrong is sent back as a sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.errors import ErvError, full_disk, full_disk_text
from erv.pipeline import PipelineError, StageCancelledError, StageResult
from erv.remote.board import Board
from erv.remote.checkout import Home, HomeBusyError
from erv.remote.checkpoints import Keeping, fetch_checkpoints
from erv.remote.key import inputs_of_entry, present_inputs
from erv.remote.old_files import keep_days, remove_old_once_a_day
from erv.remote.pulse import Beating
from erv.remote.request import Request, RequestError, read_request
from erv.stack.outages import through_outages, wait_for
from erv.tracking import lock_entries, records
from erv.tracking.opening import PLACED_VARIABLE

logger = logging.getLogger(__name__)

T = TypeVar("T")

HOME_VARIABLE = "ERV_WORKER_HOME"
# A stage that is to stop gets this long to close its MLflow run; with the rest, all is over within ten.
GRACE_SECONDS = 4.0
_PUSHES = 3
_PAUSE_SECONDS = 5.0


def home_of(environment: Environment) -> Path:
    """The folder that the workers of a clone keep between stages."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).resolve() if given else environment.state / "worker"


def work(
    environment: Environment,
    home: Path,
    board: Board,
    attempt: int,
    *,
    pool: str,
    cancelled: Callable[[], bool],
    say: Callable[[str], None] = logger.info,
) -> None:
    """Runs one attempt at a stage, and writes its result on the board.

    Args:
        environment: the worker's servers and keys.
        home: from `home_of`.
        board: of the stage.
        attempt: which one.
        pool: the work pool that asks for it.
        cancelled: whether to stop.
        say: takes each line of the stage, besides the board.

    Raises:
        StageCancelledError: `cancelled` returned True, another worker held the home for too long, or the
            attempt no longer counts; nothing runs any more and no result was written.
        ErvError: the stage failed; the coordinator has the same sentence.
    """
    worker = f"{platform.node()}:{home}"
    with Beating(board, attempt, worker) as beating:

        def tell(line: str) -> None:
            beating.say(line)
            say(line)

        def stopped() -> bool:
            return cancelled() or beating.over()

        tracked: dict[str, Any] = {"record": None, "worker": worker}
        try:
            request = read_request(board.request(attempt))
            job = _Job(environment, Home(home), board, attempt, request, pool, beating, stopped, tell)
            result = job.run(tracked)
        except StageCancelledError:
            raise
        except HomeBusyError as error:  # of this home alone; the stage may run in another
            reason = str(error)
            through_outages(environment, lambda: board.supersede(attempt, reason))
            raise StageCancelledError(reason) from error
        except Exception as error:
            sentence = _sentence(error, home)
            if not isinstance(error, ErvError) and full_disk(error) is None:
                logger.exception("the stage failed because of a bug in erv; please report it")
            _finish(environment, board, attempt, beating, {"failed": sentence, **tracked})
            raise PipelineError(sentence) from error
        _finish(environment, board, attempt, beating, {**result, **tracked})


@dataclasses.dataclass(frozen=True)
class _Job:
    """What one attempt has to do; see `work`."""

    environment: Environment
    home: Home
    board: Board
    attempt: int
    request: Request
    pool: str
    beating: Beating
    stopped: Callable[[], bool]
    tell: Callable[[str], None]

    def run(self, tracked: dict[str, Any]) -> dict[str, Any]:
        """Runs the stage; notes in `tracked` which run of MLflow it has, even if it fails."""
        request, tell = self.request, self.tell
        environment = dataclasses.replace(
            self.environment, dvc_bucket=request.bucket, mlflow_experiment=request.experiment
        )
        _deliver_leftovers(environment, self.home)
        _remove_old(self.home, tell)
        tell(f"fetching commit {request.commit[:12]} of {request.asked_by}, and what {request.stage} reads")
        name = f"{self.board.key}-{self.attempt}"
        with self.home.checkout(self.board.store, environment, request, name) as folder:
            here = dataclasses.replace(environment, workspace=folder)
            variables = _variables(here, request, self.pool)
            try:
                self._fetch(here, variables)
                with Keeping(self.board, self.attempt, request.stage, folder, self.beating.over, tell):
                    done = self._repro(here, variables)
                entry = _entry(folder, request)
                tell("storing the outputs")
                self._reach(here, lambda: self._push(here, variables))
            finally:
                _track(here, request.stage, self.stopped)
                tracked["record"] = records.read(here, request.stage)
        return {"entry": entry, "outcome": done.outcome, "seconds": done.seconds}

    def _fetch(self, here: Environment, variables: Mapping[str, str]) -> None:
        if self.request.upstream:
            self._reach(
                here,
                lambda: pipeline.pull_outputs(
                    self.request.upstream,
                    cancelled=self.stopped,
                    environment=variables,
                    workspace=here.workspace,
                ),
            )
        self._compare(here)
        step = self._reach(here, lambda: fetch_checkpoints(self.board, here.workspace))
        if step is not None:
            self.tell(f"goes on from a checkpoint of an earlier attempt, step {step}")
        self.beating.check()

    def _compare(self, here: Environment) -> None:
        """Whether the stage reads here what it reads there: before hours of work, not after them."""
        if present_inputs(self.request.stage, here.workspace) != self.request.inputs:
            raise _other_inputs(self.request)

    def _repro(self, here: Environment, variables: Mapping[str, str]) -> StageResult:
        return self._reach(
            here,
            lambda: pipeline.repro(
                self.request.stage,
                on_line=self.tell,
                cancelled=self.stopped,
                pull=not self.request.force,
                force=self.request.force,
                grace=GRACE_SECONDS,
                environment=variables,
                workspace=here.workspace,
            ),
        )

    def _push(self, here: Environment, variables: Mapping[str, str]) -> None:
        """Stores the outputs; again, after a pause, if the store was away for a moment only."""
        from funcy import retry

        def push() -> None:
            try:
                pipeline.push_outputs(
                    [self.request.stage],
                    run_cache=True,
                    cancelled=self.stopped,
                    environment=variables,
                    workspace=here.workspace,
                )
            except StageCancelledError:
                raise
            except PipelineError as error:
                if full_disk_text(str(error)):
                    raise
                self.tell(f"WARNING: {error}; trying again")
                raise _NotStoredError(str(error)) from error

        retry(_PUSHES, errors=_NotStoredError, timeout=_PAUSE_SECONDS)(push)()

    def _reach(self, here: Environment, call: Callable[[], T]) -> T:
        return through_outages(here, call, say=self.tell, cancelled=self.stopped)


class _NotStoredError(PipelineError):
    """The outputs were not stored this time."""


def _variables(here: Environment, request: Request, pool: str) -> dict[str, str]:
    """The stage's environment: our servers, this checkout's code alone, and what its run belongs to."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    variables = child_environment(here, inherited) | here.variables() | dict(request.variables)
    variables["PYTHONPATH"] = os.pathsep.join([str(here.workspace / "src"), str(here.workspace)])
    variables[PLACED_VARIABLE] = pool
    if request.patch_id:
        variables["ERV_PATCH"] = request.patch_id
    return variables


def _entry(folder: Path, request: Request) -> dict[str, Any]:
    """What DVC wrote of the stage, numbers as DVC reads them."""
    from dvc.utils.serialize import load_yaml

    stages = load_yaml(str(folder / "dvc.lock")).get("stages", {})
    entry: dict[str, Any] = json.loads(json.dumps(stages.get(request.stage, {}), default=str))
    if not entry or inputs_of_entry(entry) != request.inputs:
        raise _other_inputs(request)
    return entry


def _other_inputs(request: Request) -> RequestError:
    return RequestError(
        f"{request.stage}: here it reads other inputs than {request.asked_by} has, so the result would not"
        " count there; see that no file that it reads is ignored by git or changed while it was sent"
    )


def _track(here: Environment, name: str, stopped: Callable[[], bool]) -> None:
    """Has MLflow know the run before its checkout is removed, as far as MLflow can be reached."""
    if here.mlflow_uri is None:
        return
    if (here.state / "spool").is_dir():
        with contextlib.suppress(ErvError):  # the checkout then stays until it can be delivered
            wait_for("MLflow", f"{here.mlflow_uri}/health", here.workspace, cancelled=stopped)
    try:
        entries = pipeline.read_lock_entries(here.workspace / "dvc.lock")
    except ErvError:
        entries = {}
    lock_entries.reconcile(here, entries, [name])


def _deliver_leftovers(environment: Environment, home: Home) -> None:
    """Sends to MLflow what could not be sent when its stage ended, and removes those checkouts."""
    for folder in home.leftovers():
        here = dataclasses.replace(environment, workspace=folder)
        lock_entries.reconcile(here, {}, [])
        if folder not in home.leftovers():
            shutil.rmtree(folder, ignore_errors=True)


def _remove_old(home: Home, tell: Callable[[str], None]) -> None:
    """Removes what has lain in the home for too long; a fault there keeps no stage from running."""
    try:
        freed = remove_old_once_a_day(home, keep_days())
    except (ErvError, OSError) as error:
        tell(f"WARNING: old files of {home.folder} stay: {error}")
        return
    if freed.files or freed.commits:
        tell(f"removed {freed.size / 1e6:,.1f} MB from {home.folder} that was fetched long ago")


def _finish(
    environment: Environment, board: Board, attempt: int, beating: Beating, result: dict[str, Any]
) -> None:
    """Writes the result, as soon as the store can be reached and only if the attempt still counts."""

    def write() -> None:
        beating.check()
        board.finish(attempt, result)

    through_outages(environment, write)


def _sentence(error: Exception, home: Path) -> str:
    """What the coordinator is told; a full disk is one of this machine, which the message names."""
    if full_disk(error) or full_disk_text(str(error)):
        free = shutil.disk_usage(home if home.exists() else home.parent).free / 1e6
        return (
            f"the disk of the worker is full or its quota is used up ({platform.node()}: {home},"
            f" {free:,.0f} MB free); free space there, e.g. by deleting {home / 'cache'}, which is fetched"
            " again, and run the same command again"
        )
    if isinstance(error, ErvError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
