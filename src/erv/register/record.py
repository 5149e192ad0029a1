"""`lineage.json`: what a version was made from and which files it has, written when it is registered.

Whoever can write to the artifact store can change a served model's files, its code included. So the SHA-256
of each of them is recorded here, and that of this record in the registry, as a tag of the version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import RegistryError
from erv.files import sha256_of_file
from erv.pipeline import of_bundle, read_lock_entries
from erv.register.register import EXTERNAL, Bundle
from erv.register.versions import CODE_COMMIT_TAG
from erv.tracking.lock_entries import entry_hash
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, STARTED_BY_TAG
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo

RECORD = "lineage.json"
RECORD_TAG = "erv.lineage_sha256"
SCHEMA = "erv.version/1"


def version_record(
    bundle: Bundle,
    name: str,
    *,
    code: str,
    files: Mapping[str, str],
    run_id: str,
    parent_run_id: str | None,
    origin: Mapping[str, str],
) -> str:
    """The text of `lineage.json`; `schemas/version.json` describes it.

    Args:
        bundle: what is registered.
        name: of the registered model.
        code: digest of the code that answers for the bundle.
        files: SHA-256 of each file of the model in the artifact store, by path.
        run_id: the run that registers it.
        parent_run_id: the flow's run, if there is one.
        origin: the tags of `erv.tracking.origin.origin_tags`, and that of a commit that has the code.
    """
    dirty = origin.get(DIRTY_TAG)
    entries = {} if bundle.is_external else of_bundle(read_lock_entries())
    document = {
        "schema": SCHEMA,
        "model": name,
        "bundle": bundle.hash,
        "serving_code": code,
        "serving_commit": origin.get(CODE_COMMIT_TAG),
        "run": run_id,
        "flow_run": parent_run_id,
        "commit": origin.get(COMMIT_TAG),
        "dirty": None if dirty is None else dirty == "true",
        "started_by": origin.get(STARTED_BY_TAG),
        "stages": {stage: _stage(entry) for stage, entry in entries.items()},
        "files": dict(sorted(files.items())),
        **({"claims": bundle.json(EXTERNAL)["says"]} if bundle.is_external else {}),
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def stored_files(
    client: MlflowClient, model_id: str, bundle: Bundle, code: Path, folder: Path
) -> dict[str, str]:
    """SHA-256 of every file that MLflow stored of a model, by path.

    Files that were copied from here are hashed here; the few that MLflow wrote itself are fetched.

    Args:
        client: of the server that has the model.
        model_id: of the logged model.
        bundle: what was stored as `artifacts/NAME`.
        code: the package that was stored as `code/NAME`.
        folder: an empty folder for what is fetched.

    Raises:
        RegistryError: a file has another size than the one that was sent.
    """
    sent = {
        f"artifacts/{bundle.folder.name}/{path.relative_to(bundle.folder).as_posix()}": path
        for path in bundle.folder.rglob("*")
        if path.is_file()
    }
    sent |= {
        f"code/{code.name}/{path.relative_to(code).as_posix()}": path
        for path in code.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {}
    for item in _walk(client, model_id, None):
        path = sent.get(item.path)
        if path is None:
            path = _fetched(client, model_id, item.path, folder)
        if item.file_size is not None and item.file_size != path.stat().st_size:
            raise RegistryError(
                f"{item.path} of the new version has {item.file_size} bytes in MLflow's artifact store,"
                f" {path.stat().st_size} were sent; run the same command again"
            )
        found[item.path] = sha256_of_file(path)
    lost = sorted(sent.keys() - found.keys())
    if lost:
        raise RegistryError(
            f"{lost[0]} of the new version is not in MLflow's artifact store, {len(lost)} files are missing;"
            " run the same command again"
        )
    return found


def changed_files(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Path and fault of each file of a version that is not as it was recorded, by path.

    Args:
        folder: a copy of all files of the version.
        files: from its record.
    """
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, digest in sorted(files.items()):
        if name not in there:
            yield name, f"missing, expected sha256 {digest}"
        elif sha256_of_file(there[name]) != digest:
            yield name, f"changed since it was registered, expected sha256 {digest}"
    for name in sorted(there.keys() - files.keys() - {RECORD}):
        yield name, "added since it was registered"


def _walk(client: MlflowClient, model_id: str, folder: str | None) -> Iterator[FileInfo]:
    for item in repeated(lambda: client.list_logged_model_artifacts(model_id, folder)):
        if item.is_dir:
            yield from _walk(client, model_id, item.path)
        else:
            yield item


def _fetched(client: MlflowClient, model_id: str, path: str, folder: Path) -> Path:
    import mlflow

    model = repeated(lambda: client.get_logged_model(model_id))
    uri = f"{model.artifact_location.rstrip('/')}/{path}"
    options = {"artifact_uri": uri, "dst_path": str(folder), "tracking_uri": client.tracking_uri}
    return Path(repeated(lambda: mlflow.artifacts.download_artifacts(**options)))


def _stage(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A lock entry without sizes and counts, which the hashes determine."""
    return {
        "entry": entry_hash(entry),
        "cmd": entry.get("cmd"),
        "deps": {item["path"]: item.get("md5") for item in entry.get("deps") or []},
        "outs": {item["path"]: item.get("md5") for item in entry.get("outs") or []},
        "params": entry.get("params") or {},
    }
