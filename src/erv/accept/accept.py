"""Which results can be kept although their code has changed, and keeping them.

A result is kept by writing the present hashes of its code into `dvc.lock`; its outputs are not touched. That
is never done for a stage whose command, parameters or data have changed, or whose outputs are not in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from erv.accept import harmless
from erv.accept.contents import Contents, Files, digest_of
from erv.determinism import PACKAGE
from erv.errors import ErvError
from erv.pipeline import (
    Acceptance,
    AcceptedFile,
    ChangedFile,
    PipelineError,
    PipelineStage,
    StageChanges,
    add_accepted,
    commit_dependencies,
    read_changes,
    read_lock_entries,
)
from erv.pipeline.lock_file import Entries
from erv.tracking.lock_entries import entry_hash
from erv.tracking.origin import who

VERSIONS = "requirements"  # of the libraries that compute
_CODE = (PACKAGE, "stages", "data/label_spaces", VERSIONS)  # a test compares it with `code_of`


class AcceptError(ErvError):
    """A result can't be kept."""


@dataclass(frozen=True)
class Proposal:
    """What `erv accept` says of a stage that would run again by itself.

    Attributes:
        stage: its name.
        refusals: why its result can't be kept, a sentence each; empty if it can.
        files: the files of code that changed.
        hashes: DVC's present hash of each dependency with such a file.
    """

    stage: str
    refusals: tuple[str, ...]
    files: tuple[AcceptedFile, ...]
    hashes: Mapping[str, str]

    @property
    def harmless(self) -> bool:
        """Whether nothing that runs has changed."""
        return not self.refusals and all(file.change == harmless.HARMLESS for file in self.files)

    @property
    def verdict(self) -> str:
        """In a few words, what can be done."""
        if self.refusals:
            return "can't be kept: " + "; ".join(self.refusals)
        return (
            "can be kept, nothing that runs has changed" if self.harmless else "can be kept with a --reason"
        )


def propose(stages: Sequence[PipelineStage], workspace: Path = Path()) -> list[Proposal]:
    """What can be kept of the stages that would run again by themselves, in the order of `stages`.

    Args:
        stages: from `read_stages`.
        workspace: the top of the repository, which is the working folder.

    Raises:
        PipelineError: DVC or git can't answer.
    """
    contents = Contents(workspace)
    changes = read_changes(stages, workspace)
    return [_proposal(stage, changes[stage.name], contents) for stage in stages if changes[stage.name]]


def keep(proposals: Sequence[Proposal], reason: str = "", workspace: Path = Path()) -> list[Acceptance]:
    """Keeps the results of these stages, all or none, and records it.

    Args:
        proposals: from `propose`.
        reason: why changes that are not harmless don't matter.
        workspace: the top of the repository.

    Raises:
        AcceptError: one of them can't be kept, or not without a reason.
        PipelineError: a file changed meanwhile, or the record is damaged.
    """
    if wrong := [f"{item.stage}: {item.verdict}" for item in proposals if item.refusals]:
        raise AcceptError("\n".join(wrong))
    if not reason.strip() and (open_ := [item for item in proposals if not item.harmless]):
        file = next(file for file in open_[0].files if file.change != harmless.HARMLESS)
        raise AcceptError(
            f"{open_[0].stage}: {file.path} ({file.change}) may change its result; run the stage, or say with"
            " --reason why it doesn't"
        )
    before = read_lock_entries(workspace / "dvc.lock")
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    by = who(workspace)
    records: list[Acceptance] = []

    def record(after: Entries) -> None:
        # First, because a record of an entry that was never written says nothing of any other.
        for item in proposals:
            hashes = entry_hash(before[item.stage]), entry_hash(after[item.stage])
            why = "" if item.harmless else " ".join(reason.split())
            records.append(Acceptance(item.stage, *hashes, when, by, why, item.files))
        add_accepted(records, workspace)

    if proposals:
        commit_dependencies({item.stage: item.hashes for item in proposals}, record, workspace)
    return records


def _proposal(stage: PipelineStage, changes: StageChanges, contents: Contents) -> Proposal:
    code = [file for file in changes.files if is_code(file.path)]
    refusals = tuple(_refusals(changes, [file for file in changes.files if file not in code]))
    files = [] if refusals else [part for file in code for part in changed_files(file, contents)]
    missing = [f"{file.path} is missing" for file in code if file.after is None]
    hashes = {file.path: file.after for file in code if file.after is not None}
    return Proposal(stage.name, (*refusals, *missing), tuple(files), hashes)


def is_code(path: str) -> bool:
    """Whether a dependency is code: ours, your own label spaces, a module of yours, or versions of libraries.

    Args:
        path: as in `dvc.yaml`, or below such a path.
    """
    return path.endswith(".py") or any(path == item or path.startswith(f"{item}/") for item in _CODE)


def _refusals(changes: StageChanges, data: Iterable[ChangedFile]) -> Iterable[str]:
    if changes.never_ran:
        yield "it has not run yet"
    if changes.command:
        yield "its command has changed"
    for parameter in changes.parameters:
        yield f"parameter {parameter}"
    for file in data:
        yield f"data {file.path} {'is missing' if file.after is None else 'has changed'}"
    for path, state in changes.outputs:
        yield f"output {path} is {state}"


def changed_files(changed: ChangedFile, contents: Contents) -> list[AcceptedFile]:
    """The files in a dependency that changed, each with how.

    Args:
        changed: a dependency of code.
        contents: of the workspace.

    Raises:
        PipelineError: git can't answer, or a file changed meanwhile.
    """
    now = contents.now(changed.path)
    if digest_of(changed.path, now) != changed.after:
        raise PipelineError(f"{changed.path} changed while it was compared; run the command again")
    if changed.before is None:
        return [AcceptedFile(changed.path, harmless.LISTED, None, changed.after)]
    before = contents.when(changed.path, changed.before)
    if before is None:
        return [AcceptedFile(changed.path, harmless.UNKNOWN, changed.before, changed.after)]
    return [
        AcceptedFile(name, _change(name, before, now), _hash(name, before), _hash(name, now))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _change(name: str, before: Files, now: Files) -> str:
    if name not in before:
        return harmless.ADDED
    return harmless.change_of(name, before[name], now[name]) if name in now else harmless.REMOVED


def _hash(name: str, files: Files) -> str | None:
    return digest_of(name, {name: files[name]}) if name in files else None
