"""Every `dvc.lock` that is kept somewhere: in the workspace, in git with DVC's experiments, in MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from erv.environment import Environment
from erv.pipeline import PipelineError, read_lock_entries
from erv.pipeline.lock_file import NAME
from erv.results.settings_of import Locked
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, server_of
from erv.tracking.origin import git
from erv.tracking.rest import Refused, Run

WORKSPACE = "the workspace"
_SHOWN = 8  # digits of a commit or run
_LOG = ("log", "--all", "--full-history", "-m", "--format=C %H", "--raw", "--no-abbrev")
_LOG_SECONDS = 120.0  # a long history on a slow disk takes a while
_COMMIT = re.compile(r"C ([0-9a-f]{40})")
_EXPERIMENT = re.compile(
    r"(?P<commit>[0-9a-f]{40}) refs/exps/(?P<first>[0-9a-f]{2})/(?P<rest>[0-9a-f]{38})/(?P<name>[^/]+)"
)
_BLOB = re.compile(r":\d+ \d+ [0-9a-f]+ ([0-9a-f]{40}) [AMRC]")


@dataclass(frozen=True)
class Kept:
    """A `dvc.lock`.

    Attributes:
        lock: its entries.
        where: what has it, in words.
        run: the MLflow run that has it, or None.
        experiment: baseline and name of the experiment of DVC that has it, or None.
    """

    lock: Locked = field(hash=False)
    where: str
    run: Run | None = None
    experiment: tuple[str, str] | None = None


def of_workspace(workspace: Path) -> Iterator[Kept]:
    """The workspace's own.

    Raises:
        PipelineError: it is damaged.
    """
    if (workspace / NAME).is_file():
        yield Kept(read_lock_entries(workspace / NAME), WORKSPACE)


def of_git(workspace: Path, remarks: list[str]) -> Iterator[Kept]:
    """Those of all commits of this clone, newest first, experiments of DVC among them.

    Equal ones of commits come once; each experiment has its own, whose run may be another.

    Args:
        workspace: the clone.
        remarks: takes a sentence on each that can't be read.
    """
    began = time.monotonic()
    log = git(workspace, *_LOG, "--", f"./{NAME}", seconds=_LOG_SECONDS)
    if log is None:
        if git(workspace, "rev-parse", "--git-dir") is not None:
            within, remedy = "", "`git fsck` says what is damaged"
            if time.monotonic() - began >= _LOG_SECONDS:
                within = f" within {_LOG_SECONDS:g} s"
                remedy = "`git gc`, or a quieter machine, makes it faster"
            remarks.append(
                f"git can't list the commits of {NAME}{within}, so results of other commits and of"
                f" experiments of DVC are missing; {remedy}"
            )
        return
    commit, seen, of_commit = "", set[tuple[str, bool]](), _experiments(workspace)
    for line in log.splitlines():
        if match := _COMMIT.match(line):
            commit = match[1]
        elif match := _BLOB.match(line):
            experiment = of_commit.get(commit)
            one = (commit if experiment else match[1], experiment is not None)
            if one in seen:
                continue
            seen.add(one)
            content = git(workspace, "cat-file", "blob", match[1])
            where = f"experiment {experiment[1]}" if experiment else f"commit {commit[:_SHOWN]}"
            if content is None:
                remarks.append(f"{where}: git can't read its {NAME} now; it is left out")
            elif (lock := _parsed(content, where, remarks)) is not None:
                yield Kept(lock, where, experiment=experiment)


def _experiments(workspace: Path) -> dict[str, tuple[str, str]]:
    """Baseline and name of each experiment of DVC, by the commit in which it is kept."""
    listed = git(workspace, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    found = {}
    for line in listed.splitlines():
        if match := _EXPERIMENT.fullmatch(line):
            found[match["commit"]] = match["first"] + match["rest"], match["name"]
    return found


def of_runs(environment: Environment, runs: list[Run], remarks: list[str]) -> Iterator[Kept]:
    """Those that runs of a flow, of a publication or of an evaluation have stored; equal ones once.

    Raises:
        OSError: MLflow can't be reached.
    """
    server, seen = server_of(environment), set[str]()
    for run in runs:
        where = f"MLflow run {run.info.run_id[:_SHOWN]}"
        path = f"{LOCK_ARTIFACT_FOLDER}/{NAME}"
        try:
            if path not in server.list_artifacts(run.info.run_id, LOCK_ARTIFACT_FOLDER):
                continue
            text = server.read_artifact(run.info.run_id, path).decode("utf-8", "replace")
        except Refused as error:  # the artifact store may be away, or have lost it, while MLflow answers
            remarks.append(f"{where}: its {NAME} can't be read: {environment.mask(_line(error))}")
            continue
        if text in seen:
            continue
        seen.add(text)
        lock = _parsed(text, where, remarks)
        if lock is not None:
            yield Kept(lock, where, run)


def _parsed(text: str, where: str, remarks: list[str]) -> Locked | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_text(text, encoding="utf-8")
        try:
            found: Mapping[str, Mapping[str, object]] = read_lock_entries(path)
        except PipelineError as error:
            reason = str(error).removeprefix(f"{path}: ")
            remarks.append(f"{where}: its {NAME} is left out: {reason.partition(';')[0]}")
            return None
        return found


def _line(error: OSError) -> str:
    return " ".join(str(error).split())[:200]
