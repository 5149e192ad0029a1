"""What a clone has beside its commit and names by relative paths: a trial's checkout lies elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from erv.errors import SettingsError
from erv.pipeline import PipelineStage
from erv.settings import load_settings
from erv.sources.fetching import is_remote, local_root
from erv.sources.lock import Lock

SOURCES = Path("data/sources")  # often not in git
_VLLM = "machine.grpo.vllm_python"


def overrides_beside(workspace: Path, parameters: Path, overrides: Sequence[str]) -> list[str]:
    """Overrides by which a checkout uses the clone's environment of vLLM; it is no parameter of any stage.

    Args:
        workspace: of the clone.
        parameters: from which the trial's are made.
        overrides: of the trial, which count before these.

    Raises:
        SettingsError: the parameters have faults.
    """
    python = Path(load_settings(parameters).machine.grpo.vllm_python)
    given = any(override.startswith(f"{_VLLM}=") for override in overrides)
    if given or python.is_absolute() or not (workspace / python).exists():
        return []
    return [f"{_VLLM}={workspace / python}"]


def check_sources(workspace: Path, kept: Path, stages: Sequence[PipelineStage]) -> None:
    """Refuses sources that these stages would look for beside their checkout, and not beside the clone.

    Args:
        workspace: of the clone.
        kept: has the lock files that trials get.
        stages: that run in checkouts; what others read doesn't matter.

    Raises:
        SettingsError: a relative path leads out of the clone.
        DataError: a lock file is malformed.
    """
    faults = []
    for path in sorted((kept / SOURCES).glob("*.lock.json")):
        name = str(SOURCES / path.name)
        readers = [item.name for item in stages if name in (*item.dependencies, *item.command.split())]
        if not readers:
            continue
        uri = Lock.load(path).uri
        root = _relative(workspace, uri)
        if root is not None and ".." in root.parts:
            faults.append(
                f"{name}: {uri} leads out of the clone, and {readers[0]} reads it in checkouts elsewhere; pin"
                " the source by its absolute path before the sweep begins"
            )
    if faults:
        raise SettingsError("\n".join(faults))


def link_sources(workspace: Path, checkout: Path) -> None:
    """Lets the relative paths by which local sources are pinned lead to them from a checkout, too.

    One that leads out of the clone has no link: `check_sources` has refused it if anything reads it.

    Args:
        workspace: of the clone.
        checkout: of a trial; has the lock files.

    Raises:
        DataError: a lock file is malformed.
    """
    locks = [Lock.load(path) for path in sorted((checkout / SOURCES).glob("*.lock.json"))]
    found = [(root, lock) for lock in locks if (root := _relative(workspace, lock.uri)) is not None]
    made: list[Path] = []
    for root, lock in sorted(found, key=lambda one: len(one[0].parts)):  # what lies below one is there then
        if ".." in root.parts or (checkout / root).resolve() == (workspace / root).resolve():
            continue
        # Git has some of it: the rest is linked file by file, and nothing else that lies there.
        inside = [root / file.path for file in lock.files if file.archive is None]
        for path in inside if (checkout / root).is_dir() else [root]:
            if _link(workspace / path, checkout / path):
                made.append(path)
    if made:
        exclude = checkout / ".git" / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)  # a user's template for clones need not have it
        with exclude.open("a", encoding="utf-8") as stream:  # no uncommitted change
            stream.writelines(f"{_pattern(path)}\n" for path in made)


def _pattern(path: Path) -> str:
    return "/" + re.sub(r"[\\*?\[ ]", r"\\\g<0>", str(path))


def _relative(workspace: Path, uri: str) -> Path | None:
    """The path of a local source if it is relative and leads somewhere."""
    root = Path(os.path.normpath(local_root(uri)))
    return None if is_remote(uri) or root.is_absolute() or not (workspace / root).exists() else root


def _link(source: Path, target: Path) -> bool:
    """Makes a link unless there is something; what the source lacks, the stage that reads it tells."""
    if not source.exists():
        return False
    with suppress(FileExistsError, NotADirectoryError):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
        return True
    return False
