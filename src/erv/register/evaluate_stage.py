"""Runs the command of the stage `evaluate` for a policy that is in no stage."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from erv.environment import Environment, child_environment
from erv.pipeline import run_guarded

logger = logging.getLogger(__name__)

PREDICTIONS, METRICS = "predictions.parquet", "metrics.json"
_OPTIONS = ("--name", "--policy", "--predictions", "--metrics")  # those that differ from policy to policy


def names_its_policy(command: object) -> bool:
    """Whether a command of `evaluate` can be run for another policy."""
    return isinstance(command, str) and set(_OPTIONS) <= set(shlex.split(command))


def run_for(
    command: str,
    name: str,
    policy: Path,
    folder: Path,
    environment: Environment,
    runs: Mapping[str, str | None],
    cancelled: Callable[[], bool],
    say: Callable[[str], None] = logger.info,
) -> str | None:
    """Runs the command with another policy.

    Args:
        command: of a policy's stage, see `names_its_policy`.
        name: of the policy in logs, in MLflow (`evaluate@NAME`) and among the kept completions.
        policy: its folder.
        folder: made for `PREDICTIONS` and `METRICS`.
        environment: where it works.
        runs: the variables that say under which runs of MLflow and Prefect it is shown.
        cancelled: asked while it runs.
        say: takes its output line by line.

    Returns:
        None, or why it failed.

    Raises:
        StageCancelledError: `cancelled` returned True.
    """
    folder.mkdir()
    words = shlex.split(command)
    values = (name, policy, folder / PREDICTIONS, folder / METRICS)
    for option, value in zip(_OPTIONS, values, strict=True):
        words[words.index(option) + 1] = str(value)
    variables = child_environment(environment) | {key: run for key, run in runs.items() if run}
    last = ""

    def note(line: str) -> None:
        nonlocal last
        last = line or last
        say(f"evaluate@{name}: {line}")

    code = run_guarded(
        words,
        what=f"evaluate@{name}",
        on_line=note,
        cancelled=cancelled,
        environment=variables,
        workspace=environment.workspace,
    )
    return None if code == 0 else last.removeprefix("error: ") or f"exit code {code}"
