"""What a clone has beside its commit and names by relative paths: a trial's checkout lies elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from erv.errors import SettingsError
from erv.settings import load_settings
from erv.sources.fetching import is_remote, local_root
from erv.sources.lock import Lock

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


def link_sources(workspace: Path, checkout: Path, locks: Path) -> None:
    """Lets the relative paths by which local sources are pinned lead to them from a checkout, too.

    Args:
        workspace: of the clone.
        checkout: of a trial; has the lock files.
        locks: their folder, relative to either.

    Raises:
        SettingsError: such a path leads out of the clone.
        DataError: a lock file is malformed.
    """
    for path in sorted((checkout / locks).glob("*.lock.json")):
        uri = Lock.load(path).uri
        root = Path(os.path.normpath(local_root(uri)))
        if is_remote(uri) or root.is_absolute() or not (workspace / root).exists():
            continue
        if ".." in root.parts:
            raise SettingsError(
                f"{locks / path.name}: {uri} leads out of the clone, and trials of a sweep run in checkouts"
                " elsewhere; pin the source again by its absolute path"
            )
        if not (checkout / root).exists():
            (checkout / root).parent.mkdir(parents=True, exist_ok=True)
            (checkout / root).symlink_to(workspace / root)
            with (checkout / ".git" / "info" / "exclude").open("a", encoding="utf-8") as stream:
                stream.write(f"/{root}\n")  # no uncommitted change
