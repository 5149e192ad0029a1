"""Takes an entry of `dvc.lock` that another machine made, and fetches what it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from erv.pipeline.changes import quiet_dvc
from erv.pipeline.lock_file import NAME, PipelineError, keep_lock, lock_fault
from erv.pipeline.restored import damaged_outputs, remove_damaged_objects
from erv.pipeline.run import NOTHING_MOVED, dvc_command, run_guarded


def missing_from_remote(entry: Mapping[str, Any], workspace: str | Path = ".") -> list[str]:
    """The outputs of a lock entry that DVC's default remote doesn't have as a whole.

    Raises:
        PipelineError: the remote can't be asked.
    """
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    outs = {str(out["path"]): str(out["md5"]) for out in entry.get("outs") or []}
    try:
        with quiet_dvc(), Repo(str(Path(workspace).resolve())) as repo:
            odb = repo.cloud.get_remote_odb()
            there = set(odb.oids_exist(set(outs.values())))
            members = {
                path: {info.value for _key, _meta, info in Tree.load(odb, HashInfo("md5", md5))}
                for path, md5 in outs.items()
                if md5.endswith(".dir") and md5 in there
            }
            wanted: set[str] = set().union(*members.values())
            there |= set(odb.oids_exist(wanted)) if wanted else set()
    except Exception as error:  # of DVC, of the library of its kind of store, or of the network
        raise PipelineError(" ".join(str(error).split()) or type(error).__name__) from error
    return [path for path, md5 in outs.items() if not there.issuperset({md5, *members.get(path, ())})]


def take_entry(
    name: str,
    entry: Mapping[str, Any],
    *,
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> None:
    """Writes an entry into `dvc.lock`, and brings the outputs that it names into the workspace.

    Args:
        name: of the stage.
        entry: as DVC wrote it elsewhere, for the inputs that are here.
        on_line: takes each line of DVC's output.
        cancelled: polled several times a second.
        environment: of DVC; this process's by default.
        workspace: the top of the repository.

    Raises:
        PipelineError: the entry is none, or its outputs can't be fetched.
        StageCancelledError: `cancelled` returned True.
    """
    root = Path(workspace).resolve()
    _write(name, entry, root)
    said: list[str] = []

    def note(line: str) -> None:
        said.append(line)
        if line.rstrip() != NOTHING_MOVED:
            on_line(line)

    for _attempt in range(2):
        code = run_guarded(
            # By force: what a local run would have deleted may be in the way.
            dvc_command("pull", "--force", name),
            what=name,
            on_line=note,
            cancelled=cancelled,
            environment=environment,
            workspace=root,
        )
        damaged = damaged_outputs(entry, root) if code == 0 else []
        if code == 0 and not damaged:
            return
        remove_damaged_objects(entry, root)
    reason = next((line for line in reversed(said) if line.startswith("ERROR: ")), f"code {code}")
    what = f"{damaged[0]} isn't what the worker made" if damaged else reason.removeprefix("ERROR: ")
    raise PipelineError(f"{name}: its outputs can't be fetched ({what}); run `dvc pull {name}`")


def _write(name: str, entry: Mapping[str, Any], root: Path) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import modify_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA({"schema": "2.0", "stages": {name: dict(entry)}})
    except Invalid as error:
        raise PipelineError(f"{name}: what the worker sent is no entry of {NAME} ({error})") from None
    keep_lock(root)
    try:
        with (
            quiet_dvc(),
            Repo(str(root), _wait_for_lock=True) as repo,
            repo.lock,
            modify_yaml(str(root / NAME)) as content,
        ):
            content.setdefault("schema", "2.0")
            content["stages"] = content.get("stages", {})
            content["stages"][name] = dict(entry)
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise PipelineError(lock_fault(root) or f"{NAME}: can't be written ({reason})") from error
    keep_lock(root)
