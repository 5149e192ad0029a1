"""Starts Prefect's programs with the workspace's environment, which Prefect reads when it is imported.

`run_flow` and `serve` replace this process, so that signals reach the program itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from erv.environment import Environment, child_environment, load_environment
from erv.errors import StackError
from erv.settings import load_settings
from erv.stack import deployments
from erv.stack.prefect_api import ask
from erv.stack.reach import require
from erv.tracking.origin import who

POOL = "erv"
# One line per message, with the stage it comes from; Prefect's own format is more repetitive.
_FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s [%(task_run_name)s] %(message)s",
}
_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # without our server a flow must fail
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # DVC is the only cache
    "PREFECT_TASKS_REFRESH_CACHE": "true",
    "PREFECT_LOGGING_TO_API_MAX_LOG_SIZE": "100000",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the summary has the addresses
}


def run_flow(
    targets: Sequence[str],
    *,
    force: bool = False,
    workers: int = 2,
    only: str | None = None,
    require_gates: bool = False,
    require_lineage: bool = False,
) -> NoReturn:
    """Replaces this process by `python -m flows.run`, whose arguments these are.

    Raises:
        StackError: no Prefect server answers.
    """
    environment = _checked()
    switches = {
        "--force": force,
        "--require-gates": require_gates,
        "--require-lineage": require_lineage,
    }
    flags = [flag for flag, given in switches.items() if given]
    sys.stderr.write("starting the train flow\n")  # Prefect takes seconds to import, on a busy machine many
    flags += [*(["--only", only] if only else []), "--workers", str(workers)]
    _become([sys.executable, "-m", "flows.run", *flags, *targets], environment)


def serve() -> NoReturn:
    """Replaces this process by a Prefect worker for the pool of `prefect.yaml`.

    Raises:
        StackError: no Prefect server answers.
    """
    environment = _checked()
    _ensure_pool(environment)
    if note := deployments.note_for_worker(environment):
        sys.stderr.write(f"warning: {note}\n")
    _become([*_prefect(), "worker", "start", "--pool", POOL, "--type", "process"], environment)


def deploy(*, replace: bool = False) -> None:
    """Registers the deployments of `prefect.yaml` with our Prefect server, and who is told of what happens.

    Safe to repeat.

    Args:
        replace: also take over what another clone has deployed.

    Raises:
        StackError: no Prefect server answers, or it refuses the deployments, or they are another clone's.
        SettingsError: `params.yaml` has faults.
    """
    environment = _checked()
    model = load_settings(environment.workspace / "params.yaml").register_.model_name
    if not replace:
        deployments.refuse_foreign(environment)
    _ensure_pool(environment)
    # What Prefect says of it is advice for its own commands, which start a worker without our servers.
    _call([*_prefect(), "deploy", "--all"], environment, ERV_MODEL=model, ERV_WHO=who(environment.workspace))
    for line in _deployed(environment):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(_call([sys.executable, "-m", "flows.notices"], environment))


def _deployed(environment: Environment) -> list[str]:
    """What was deployed, how to start it, and what that takes."""
    names = deployments.declared(environment.workspace)
    lines = [
        f"deployed {' and '.join(names)}; their runs work in {environment.workspace}",
        # Which server the user's own `prefect` asks can't be seen here: this process has our variables.
        f'start a run: prefect deployment run {names[0]} --watch  # after: eval "$(erv stack env)"',
    ]
    if not deployments.worker_is_online(environment, POOL):
        lines.append(
            "no worker is running, and runs wait for one; start it in another shell: erv run --worker"
        )
    return lines


def prefect_environment(environment: Environment) -> dict[str, str]:
    """The variables for a Prefect program: our servers, our settings, and this workspace importable."""
    variables = {**child_environment(environment), **environment.variables(), **_FORMATS, **_SETTINGS}
    path = [str(environment.workspace), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    variables["PATH"] = os.pathsep.join(folders)
    return variables


def _checked() -> Environment:
    environment = load_environment()
    if not (environment.workspace / "dvc.yaml").is_file():
        raise StackError(
            f"{environment.workspace}: there is no pipeline here (dvc.yaml is missing); go to the root of the"
            " repository"
        )
    require("Prefect", environment.prefect_api_url, environment.workspace)
    (environment.stack / "prefect").mkdir(parents=True, exist_ok=True)  # Prefect creates only one level
    return environment


def _ensure_pool(environment: Environment) -> None:
    """Creates the pool that deployments and workers need; Prefect refuses to create one that exists."""
    if ask(environment, f"/work_pools/{POOL}", missing=True) is None:
        _call([*_prefect(), "work-pool", "create", POOL, "--type", "process"], environment)


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


def _become(command: list[str], environment: Environment) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, prefect_environment(environment))  # noqa: S606
