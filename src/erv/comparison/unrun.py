"""What a state holds that its results were not made with: what changed after its stages ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.accept.accept import is_code
from erv.accept.contents import Contents, digest_of
from erv.lineage.entries import Locked, producers
from erv.parameters import PARAMETERS, Change, as_texts, changes, flat
from erv.pipeline import of_these_stages

_SHOWN = 3


def other_parameters(lock: Locked, parameters: Mapping[str, str]) -> Iterator[str]:
    """A sentence on the stages that ran with other parameters; nothing if there are none.

    Args:
        lock: the lock entries.
        parameters: of the `params.yaml` beside it, by dotted name, as texts.
    """
    differing = {name: _parameters(entry, parameters) for name, entry in lock.items()}
    found = dict.fromkeys(change.text() for items in differing.values() for change in items)
    if found:
        yield _sentence([name for name, items in differing.items() if items], "parameters", list(found))


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
    contents, known = Contents(workspace), dict[str, str]()
    differing: dict[str, list[str]] = {}
    for name, entry in lock.items():
        for item in entry.get("deps") or []:
            path = item["path"]
            if not _is_read_again(lock, workspace, path):
                continue
            if path not in known:
                known[path] = digest_of(path, contents.now(path)) or ""
            if known[path] != item.get("md5"):
                differing.setdefault(name, []).append(path)
    if differing:
        paths = dict.fromkeys(path for items in differing.values() for path in items)
        yield _sentence(list(differing), "files", list(paths))


def _is_read_again(lock: Locked, workspace: Path, path: str) -> bool:
    place = workspace / path
    if not place.resolve().is_relative_to(workspace.resolve()) or producers(lock, path):
        return False
    return is_code(path) or place.is_file()


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
