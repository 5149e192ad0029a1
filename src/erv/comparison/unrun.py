"""What a state holds that its results were not made with: what changed after its stages ran."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.accept.accept import is_code
from erv.accept.contents import Contents, Files, digest_of
from erv.lineage.entries import Locked, producers
from erv.parameters import PARAMETERS, Change, as_texts, changes, flat
from erv.pipeline import inputs_of, of_these_stages

_SHOWN = 3


def other_parameters(lock: Locked, parameters: Mapping[str, str]) -> Iterator[str]:
    """A sentence on the stages that ran with other parameters; nothing if there are none.

    Args:
        lock: the lock entries.
        parameters: of the `params.yaml` beside it, by dotted name, as texts.
    """
    differing = {name: _parameters(entry, parameters) for name, entry in lock.items()}
    found = dict.fromkeys(change.brief() for items in differing.values() for change in items)
    if found:
        yield _sentence([name for name, items in differing.items() if items], "parameters", list(found))


def other_data(lock: Locked) -> Iterator[str]:
    """A sentence on the stages that read what other stages have made anew since; nothing if there are none.

    Args:
        lock: the lock entries of something, without those of stages that are gone.
    """
    differing = {
        name: [item.path for item in inputs_of(lock, name) if item.as_written is False] for name in lock
    }
    if paths := dict.fromkeys(path for items in differing.values() for path in items):
        yield _sentence([name for name, items in differing.items() if items], "data and models", list(paths))


def gone_stages(lock: Locked, folder: Path = Path()) -> Iterator[str]:
    """A sentence on the stages that `dvc.yaml` no longer has; nothing if there are none.

    Args:
        lock: the lock entries of something.
        folder: with `dvc.yaml` and `params.yaml`.
    """
    if gone := sorted(lock.keys() - of_these_stages(lock, folder).keys()):
        yield f"made by stages that are no longer in dvc.yaml: {', '.join(gone)}"


def other_files(lock: Locked, workspace: Path) -> Iterator[str]:
    """A sentence on the stages whose code, prompts and the like have changed; nothing if there are none.

    Data are not read again: outputs of stages, and folders from elsewhere.

    Args:
        lock: the lock entries of the workspace.
        workspace: the top of the repository.

    Raises:
        PipelineError: DVC can't say which files of a folder count.
    """
    contents = Contents(workspace)
    yield from _other(lock, workspace, contents.now, lambda path: (workspace / path).is_file())


def other_committed_files(lock: Locked, workspace: Path, commit: str) -> Iterator[str]:
    """The same sentence about the files that a commit has beside its lock entries.

    Args:
        lock: the lock entries.
        workspace: the top of the repository.
        commit: one that this repository has.

    Raises:
        PipelineError: git or DVC can't say which files of a folder count.
    """
    contents = Contents(workspace)
    files = functools.cache(functools.partial(contents.at, commit))
    yield from _other(lock, workspace, files, lambda path: path in files(path))


def _other(
    lock: Locked, workspace: Path, files: Callable[[str], Files], is_file: Callable[[str], bool]
) -> Iterator[str]:
    """A sentence on the stages that ran with other files than `files` gives for their dependencies."""
    digest = functools.cache(lambda path: digest_of(path, files(path)))
    differing: dict[str, list[str]] = {}
    for name, entry in lock.items():
        for item in entry.get("deps") or []:
            path = item["path"]
            if not (workspace / path).resolve().is_relative_to(workspace.resolve()) or producers(lock, path):
                continue
            if (is_code(path) or is_file(path)) and digest(path) != item.get("md5"):
                differing.setdefault(name, []).append(path)
    if differing:
        paths = dict.fromkeys(path for items in differing.values() for path in items)
        yield _sentence(list(differing), "files", list(paths))


def _parameters(entry: Mapping[str, Any], parameters: Mapping[str, str]) -> list[Change]:
    """Where the parameters that a stage ran with differ from these."""
    ran = (entry.get("params") or {}).get(PARAMETERS) or {}
    now = {
        name: text
        for name, text in parameters.items()
        if any(name == key or name.startswith(f"{key}.") for key in ran)
    }
    return changes(as_texts(flat(ran)), now)


def _sentence(stages: Sequence[str], what: str, items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    changed = ", ".join(items[:_SHOWN]) + more
    return f"not run with these {what}: {', '.join(stages)} ({changed}); outputs and metrics are from before"
