"""Queues the repeats as experiments of DVC, runs its queue, and reads what came of them.

DVC runs each experiment in a folder of its own, with the code and parameters that the workspace had when it
was queued, and keeps its results in the workspace's cache. `dvc exp show`, `dvc exp apply` and `dvc queue`
see them.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from erv.environment import Environment, child_environment
from erv.errors import EvaluationError
from erv.pipeline import PipelineError, dvc_command
from erv.repeat.parameters import PARAMETERS, deciding
from erv.repeat.plan import Repeat, named

COMPARISON, EVALUATIONS = "report/comparison.json", "eval"
SOURCES = Path("data/sources")  # often not in git, and what git doesn't know is not in an experiment's folder


def finished(workspace: Path) -> dict[Repeat, str]:
    """The finished repeats of the current commit, with the revision of each."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    try:
        with Repo(str(workspace)) as repo:
            by_commit = repo.experiments.ls()
    except (DvcException, SCMError) as error:
        raise PipelineError(f"DVC can't list the experiments: {error}") from None
    found = {}
    for name, revision in chain.from_iterable(by_commit.values()):
        repeat = named(name)
        if repeat is not None and revision is not None:
            found[repeat] = str(revision)
    return dict(sorted(found.items()))


def queued(workspace: Path) -> set[Repeat]:
    """The repeats that wait in DVC's queue or run."""
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        queue = repo.experiments.celery_queue
        entries = [*queue.iter_queued(), *queue.iter_active()]
    return {repeat for entry in entries if entry.name and (repeat := named(entry.name)) is not None}


def forget(repeat: Repeat, environment: Environment) -> None:
    """Removes a finished experiment, so that another can take its name. Its results stay in DVC's cache.

    Raises:
        PipelineError: DVC refuses.
    """
    _call(["exp", "remove", repeat.name], environment)


def enqueue(repeat: Repeat, environment: Environment, targets: Sequence[str]) -> None:
    """Adds a repeat to DVC's queue.

    Args:
        repeat: its seed and fold.
        environment: which servers its stages use.
        targets: the stages to run, with what they need.

    Raises:
        PipelineError: DVC refuses.
    """
    sets = [part for override in repeat.overrides for part in ("-S", override)]
    copies = ["-C", str(SOURCES)] if (environment.workspace / SOURCES).is_dir() else []
    _call(["exp", "run", "--queue", "-n", repeat.name, *sets, *copies, *targets], environment)


def run_queue(environment: Environment, jobs: int) -> None:
    """Runs everything in DVC's queue, and shows its output until all has ended.

    An experiment that fails is not among the `finished` ones; the others are kept.

    Args:
        environment: which servers the stages use.
        jobs: experiments at a time.

    Raises:
        PipelineError: DVC can't run its queue.
    """
    _call(["exp", "run", "--run-all", "--jobs", str(jobs)], environment, shown=True)


def read_comparison(workspace: Path, revision: str) -> dict[str, Any]:
    """The comparison of a finished experiment.

    Raises:
        EvaluationError: it is not in DVC's cache, or was written by an earlier version.
    """
    with _at(workspace, revision) as open_file:
        comparison: dict[str, Any] = json.loads(open_file(COMPARISON).read())
    return comparison


def read_parameters(workspace: Path, revision: str) -> dict[str, Any]:
    """The parameters with which an experiment ran, see `erv.repeat.parameters.deciding`.

    Raises:
        EvaluationError: they can't be read.
    """
    with _at(workspace, revision) as open_file:
        return deciding(open_file(PARAMETERS).read())


def evaluations_of(workspace: Path, revision: str, policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The content of `metrics.json` of the policies of a finished experiment.

    Raises:
        EvaluationError: they are not in DVC's cache.
    """
    with _at(workspace, revision) as open_file:
        return {
            policy: json.loads(open_file(f"{EVALUATIONS}/{policy}/metrics.json").read())
            for policy in policies
        }


def predictions_of(
    workspace: Path, revision: str, policies: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The predictions of the policies of a finished experiment.

    Raises:
        EvaluationError: they are not in DVC's cache.
    """
    import pyarrow.parquet as pq

    with _at(workspace, revision) as open_file:
        return {
            policy: pq.read_table(open_file(f"{EVALUATIONS}/{policy}/predictions.parquet")).to_pylist()
            for policy in policies
        }


class _Opens(Protocol):
    def __call__(self, path: str) -> io.BytesIO: ...


@contextmanager
def _at(workspace: Path, revision: str) -> Iterator[_Opens]:
    """Opens files as they were at a revision, for reading bytes."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace), rev=revision) as repo:

            def open_file(path: str) -> io.BytesIO:
                with repo.dvcfs.open(path, mode="rb") as stream:
                    return io.BytesIO(stream.read())

            yield open_file
    except (DvcException, OSError) as error:
        raise EvaluationError(
            f"experiment {revision[:7]}: {error}; run `erv repeat run` again with --again"
        ) from None


def _call(arguments: Sequence[str], environment: Environment, *, shown: bool = False) -> None:
    variables = {**child_environment(environment), **environment.variables()}
    # DVC starts its workers by the name `dvc`. In an experiment's folder, `src` is the experiment's own code.
    here = str(Path(sys.executable).parent)
    variables["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    variables["PYTHONPATH"] = os.pathsep.join(["src", *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        dvc_command(*arguments),
        env=variables,
        cwd=environment.workspace,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = " ".join((result.stdout or "see its output above").split())
        raise PipelineError(f"`dvc {' '.join(arguments)}` failed: {environment.mask(said)[-500:]}")
