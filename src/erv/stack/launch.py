"""Starts Prefect's programs with the workspace's environment, which Prefect reads when it is imported.

`run_flow` and `serve` replace this process, so that signals reach the program itself.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from erv.environment import Environment, child_environment, load_environment, remedy_for
from erv.errors import StackError
from erv.settings import load_settings
from erv.settings.overrides import overridden
from erv.settings.pool_name import check_pool_name
from erv.stack import deployments, other_pools, pools
from erv.stack.deployments import Deployed, listed
from erv.stack.job_template import read_job_template, worker_settings
from erv.stack.lost_runs import REASON, close_lost
from erv.stack.one_origin import check_servers
from erv.stack.own_code import require_own_code
from erv.stack.prefect_api import ask
from erv.stack.reach import require
from erv.stack.takeover import takeovers, tell
from erv.tracking.origin import who

# The deployments of the train flow in `prefect.yaml`.
TRAIN = ("train/local", "train/distributed")
RETRAIN = "retrain/scheduled"  # the one that looks for new data
NIGHTLY = {"schedule": {"cron": "0 3 * * *", "timezone": "UTC"}, "active": False, "slug": "nightly"}

# One line per message, with the stage it comes from; Prefect's own format is more repetitive.
_FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s [%(task_run_name)s] %(message)s",
}
SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # without our server a flow must fail
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # DVC is the only cache
    "PREFECT_TASKS_REFRESH_CACHE": "true",
    "PREFECT_LOGGING_TO_API_MAX_LOG_SIZE": "100000",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the summary has the addresses
}

_ASKS = "PREFECT_WORKER_QUERY_SECONDS"
_ASKS_SECONDS = "3"  # Prefect's own ten let a run wait for five on average, and each placed stage again


def run_flow(
    targets: Sequence[str],
    *,
    force: bool = False,
    workers: int = 2,
    only: str | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    placement: Sequence[str] = (),
    require_gates: bool = False,
    require_lineage: bool = False,
) -> NoReturn:
    """Replaces this process by `python -m flows.run`, whose arguments these are.

    Raises:
        StackError: no Prefect server answers.
        SettingsError: `params.yaml` has faults, or would have some with the profile and the overrides.
    """
    environment = _clone()
    parameters = environment.workspace / "params.yaml"
    load_settings(parameters)  # the flow would end as any failed one
    if profile is not None or overrides:
        overridden(parameters, profile, overrides)
    _require_prefect(environment)
    switches = {
        "--force": force,
        "--require-gates": require_gates,
        "--require-lineage": require_lineage,
    }
    flags = [flag for flag, given in switches.items() if given]
    sys.stderr.write("starting the train flow\n")  # Prefect takes seconds to import, on a busy machine many
    flags += [*(["--only", only] if only else []), "--workers", str(workers)]
    flags += [*(["--profile", profile] if profile else []), *(f"--set={one}" for one in overrides)]
    flags += [f"--placement={one}" for one in placement]
    _become([sys.executable, "-m", "flows.run", *flags, *targets], environment)


def run_sweep(parameters: Mapping[str, Any]) -> NoReturn:
    """Replaces this process by `python -m flows.sweep`.

    Args:
        parameters: of the flow.

    Raises:
        StackError: no Prefect server answers.
        SettingsError: `params.yaml` has faults.
    """
    environment = _clone()
    load_settings(environment.workspace / "params.yaml")
    _require_prefect(environment)
    sys.stderr.write("starting the sweep\n")
    _become([sys.executable, "-m", "flows.sweep", json.dumps(dict(parameters))], environment)


def serve_shared(pool: str, job_template: Path | None = None) -> NoReturn:
    """Replaces this process by a Prefect worker for a work pool that several clones send stages to.

    It needs the code of a clone, but no pipeline: what stages run comes with their requests.

    Args:
        pool: its name; a missing one is made.
        job_template: makes each stage a Kubernetes job; None runs them here.

    Raises:
        StackError: no Prefect server answers, no object store is named, another clone's code would run, the
            pool is of another type, or the template has faults.
        SettingsError: no placement could name the pool.
        StorageError: the store refuses this machine; a worker that it refuses would fail whatever it takes.
    """
    check_pool_name(pool)
    environment = _clone(needs="flows/run_stage.py", called="code of erv's workers")
    if job_template is not None:
        _serve_jobs(environment, pool, job_template)
    _require_prefect(environment)
    if not environment.has_storage:
        raise StackError(f"a worker needs the object store; {remedy_for('S3', environment.workspace)}")
    from erv.storage.store import open_store

    open_store(environment).list(f"s3://{environment.dvc_bucket}/remote/commits")
    # Stages run in folders of their own, from which a relative path would lead elsewhere.
    home = Path(os.environ.get("ERV_WORKER_HOME") or environment.state / "worker").resolve()
    os.environ["ERV_WORKER_HOME"] = str(home)
    limit = _call([sys.executable, "-m", "flows.shared_pools", pool], environment).strip().rpartition(": ")[2]
    sys.stderr.write(
        f"serving work pool {pool}: one stage at a time here, {limit} at a time over all workers"
        f" (`prefect work-pool set-concurrency-limit {pool} N` changes that); files are in {home}"
        " (ERV_WORKER_HOME)\n"
    )
    _become_worker(pool, "process", environment, "--limit", "1")


def _serve_jobs(environment: Environment, pool: str, job_template: Path) -> NoReturn:
    """Becomes Prefect's Kubernetes worker, which needs neither the object store nor a home."""
    template = read_job_template(job_template)
    if importlib.util.find_spec("prefect_kubernetes") is None:
        raise StackError(
            "--job-template needs Prefect's Kubernetes worker, which isn't installed here; image erv:server"
            " has it, elsewhere: pip install -r infra/compose/requirements-server.txt"
        )
    _require_prefect(environment)
    register = ["-m", "flows.shared_pools", pool, f"--job-template={job_template.resolve()}"]
    limit = _call([sys.executable, *register], environment).strip().rpartition(": ")[2]
    sys.stderr.write(
        f"serving work pool {pool}: each stage is a Kubernetes job, made from {job_template}; {limit} at a"
        f" time (`prefect work-pool set-concurrency-limit {pool} N` changes that)\n"
    )
    options = ["--install-policy", "never"]
    _become_worker(pool, pools.KUBERNETES, environment, *options, **worker_settings(template))


def serve() -> NoReturn:
    """Replaces this process by a Prefect worker for the work pool of this clone.

    Raises:
        StackError: no Prefect server answers, or another clone's code would run.
    """
    environment = _clone()
    _require_prefect(environment)
    pool = _ensure_pool(environment)
    for note in (deployments.note_for_worker(environment), other_pools.former_note(environment)):
        if note:
            sys.stderr.write(f"warning: {note}\n")
    # A worker that was killed left its run behind, and the run its slot.
    sys.stderr.write(_call([sys.executable, "-m", "flows.abandoned"], environment))
    for lost in close_lost(environment, pool):
        sys.stderr.write(f"warning: flow run {lost} is marked as crashed: {REASON}\n")
    _become_worker(pool, "process", environment)


def deploy(*, workers: int | None = None, replace: bool = False, cancel_waiting: bool = False) -> None:
    """Registers the deployments of `prefect.yaml` with our Prefect server, and who is told of what happens.

    Safe to repeat. Whoever had the deployments before is told by the automations of their model.

    Args:
        workers: how many stages a run of the train flow has side by side; as `prefect.yaml` says by default.
        replace: also take over what another clone has deployed.
        cancel_waiting: cancel the runs of the deployments that wait in other pools than this clone's.

    Raises:
        StackError: no Prefect server answers, or it refuses the deployments, or they are another clone's, or
            another clone's code would run.
        SettingsError: `params.yaml` has faults.
    """
    environment = _clone()
    settings = load_settings(environment.workspace / "params.yaml")
    model = settings.register_.model_name
    _require_prefect(environment)
    before = deployments.deployed(environment)
    if not replace:
        deployments.refuse_foreign(environment, before)
    names = deployments.names_of_stages(environment.workspace)
    variables = {
        "ERV_MODEL": model,
        "ERV_WHO": who(environment.workspace),
        "ERV_POOL": _ensure_pool(environment),
        deployments.STAGES_VARIABLE: " ".join(names),
        deployments.SOURCES_VARIABLE: " ".join(settings.sources.model_dump()),
        deployments.PLACED_VARIABLE: " ".join(
            dict.fromkeys([*names, *deployments.placed_by_default(environment.workspace)])
        ),
    }
    # What Prefect says of it is advice for its own commands, which start a worker without our servers.
    for choice in _choices(environment, workers):
        _call([*_prefect(), "deploy", *choice], environment, **variables)
    _call([sys.executable, "-m", "flows.shared_pools"], environment)
    after = deployments.deployed(environment)
    _plan(environment, after)
    for line in (
        *_moved(environment, before),
        *_left(environment, after, cancel_waiting),
        *_deployed(environment),
    ):
        sys.stdout.write(f"{line}\n")
    try:
        sys.stdout.write(_call([sys.executable, "-m", "flows.notices"], environment))
    finally:  # by the automations that there are by now; a repetition takes nothing over
        for taken in takeovers(environment, before, model):
            if warning := tell(environment, taken, variables["ERV_WHO"]):
                sys.stderr.write(f"warning: {warning}\n")


def _choices(environment: Environment, workers: int | None) -> Iterator[list[str]]:
    """What to deploy, per call of `prefect deploy`: it takes parameters only for one deployment at a time."""
    if workers is None:
        yield ["--all"]
        return
    for name in deployments.declared(environment.workspace):
        parameters = ["--param", f"workers={workers}"] if name in (*TRAIN, RETRAIN) else []
        yield ["--name", name, *parameters]


def _plan(environment: Environment, found: Sequence[Deployed]) -> None:
    """Gives the deployment that looks for new data a schedule that is off, if it has none.

    It isn't in `prefect.yaml`: each `erv run --deploy` would undo what people set on Prefect's page.
    """
    for one in found:
        if one.name == RETRAIN and not one.has_schedule:
            ask(environment, f"/deployments/{one.id}/schedules", [NIGHTLY], about="a schedule")


def _moved(environment: Environment, before: Sequence[Deployed]) -> Iterator[str]:
    """From whom the deployments were taken, and what that changes for a worker there."""
    for place, names in deployments.foreign(environment, before).items():
        yield f"taken over: {listed(names)} from {place}; a worker there gets no new runs of them"
    own = pools.pool_of(environment.workspace)
    left = {one.pool for one in before if one.place.is_of(environment)} - {None, own}
    for pool in sorted(map(str, left)):
        yield f"moved to work pool {own}: a worker of {pool!r} gets no new runs, so stop it"
    scheduled = [one.name for one in before if one.schedules and not one.place.is_of(environment)]
    if scheduled:  # Prefect keeps them with the deployment
        what = listed(scheduled)
        yield f"schedules of {what} start runs here from now on; Prefect's page pauses and deletes them"


def _left(environment: Environment, found: Sequence[Deployed], cancel_waiting: bool) -> Iterator[str]:
    """What becomes of the runs in other pools."""
    waiting = 0
    for left in other_pools.left_elsewhere(environment, found):
        if cancel_waiting and left.waiting:
            yield left.cancelled(other_pools.cancel(environment, left))
            left = dataclasses.replace(left, waiting=())
        waiting += len(left.waiting)
        yield from left.lines()
    if waiting:
        yield f"to cancel {'it' if waiting == 1 else 'the waiting ones'}: erv run --deploy --cancel-waiting"
    if note := other_pools.former_note(environment):
        yield note


def _deployed(environment: Environment) -> Iterator[str]:
    """What was deployed, how to start it, and what that takes."""
    names = deployments.declared(environment.workspace)
    pool = pools.pool_of(environment.workspace)
    yield f"deployed {listed(names)}; their runs work in {environment.workspace}"
    # Which server the user's own `prefect` asks can't be seen here: this process has our variables.
    yield f'start a run: prefect deployment run {names[0]} --watch  # after: eval "$(erv stack env)"'
    if not pools.worker_is_online(environment, pool):
        yield (
            f"no worker of this clone is running (work pool {pool}): runs will wait until one is started"
            " here, in another shell: erv run --worker"
        )


def prefect_environment(environment: Environment) -> dict[str, str]:
    """The variables for a Prefect program: our servers, our settings, and this workspace importable."""
    variables = {**child_environment(environment), **environment.variables(), **_FORMATS, **SETTINGS}
    path = [str(environment.workspace), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    variables["PATH"] = os.pathsep.join(folders)
    return variables


def _clone(needs: str = "dvc.yaml", called: str = "pipeline") -> Environment:
    environment = load_environment()
    if not (environment.workspace / needs).is_file():
        raise StackError(
            f"{environment.workspace}: there is no {called} here ({needs} is missing); go to the root of the"
            " repository"
        )
    require_own_code(environment.workspace)
    check_servers(environment)
    return environment


def _require_prefect(environment: Environment) -> None:
    require("Prefect", environment.prefect_api_url, environment.workspace)
    (environment.stack / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect creates only one level


def _ensure_pool(environment: Environment) -> str:
    """The name of this clone's pool, which deployments and workers need; creates or mends it."""
    name = pools.pool_of(environment.workspace)
    found = pools.read_pool(environment, name)
    if found is None or pools.folder_of(found) != str(environment.workspace):
        _call([sys.executable, "-m", "flows.pool"], environment)
    return name


def _call(command: Sequence[str], environment: Environment, **more: str) -> str:
    """Runs a program to its end, and returns what it printed."""
    result = subprocess.run(
        command,
        env={**prefect_environment(environment), **more},
        cwd=environment.workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        text = " ".join((result.stderr or result.stdout).split())
        said = " ".join(command[command.index("-m") + 1 :])
        raise StackError(f"`{said}` failed: {environment.mask(text)[-500:]}")
    return result.stdout


def _prefect() -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt"]


def _become_worker(pool: str, kind: str, environment: Environment, *options: str, **more: str) -> NoReturn:
    """Becomes Prefect's worker; it asks for runs every few seconds, or as often as its variable says."""
    # Upon SIGTERM Prefect's worker sends itself SIGINT, which a script's `&` has us ignore.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asks = {_ASKS: os.environ.get(_ASKS, _ASKS_SECONDS)}
    command = [*_prefect(), "worker", "start", "--pool", pool, "--type", kind, *options]
    _become(command, environment, **asks, **more)


def _become(command: list[str], environment: Environment, **more: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, {**prefect_environment(environment), **more})  # noqa: S606
