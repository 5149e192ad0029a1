"""Training checkpoints: where they are kept, which ones are complete, and when they are deleted.

DVC deletes the outputs of a stage before it runs, so checkpoints live outside them, under `.erv/checkpoints`,
in a folder named after the hash of everything that decides the result. A stage restarted with the same inputs
finds its checkpoints; with other inputs it can't pick them up by mistake.

A checkpoint counts only with its completion record, which is written last: a process killed while writing
leaves a folder without one, and that folder is never resumed from. The record holds the sha256 of every file,
and a checkpoint whose files have changed since is not resumed from either, but from the one before it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from erv.determinism import code_of, code_version
from erv.files import sha256_of, sha256_of_file, write_text

logger = logging.getLogger(__name__)

ROOT = Path(".erv/checkpoints")
RECORD = "complete.json"
PREFIX = "checkpoint-"
# Libraries that decide the result together with our code.
LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "safetensors",
    "numpy",
)


def checkpoint_folder(stage: str, *, root: str | Path = ROOT, **inputs: Any) -> Path:
    """The folder for the checkpoints of one stage with exactly these inputs.

    Args:
        stage: stage address, e.g. `sft` or `grpo@erv`.
        root: parent of all checkpoints.
        **inputs: what decides the result. A `Path` is hashed by the content of its file or folder, a settings
            section by its values, anything else as JSON.

    Returns:
        `<root>/<stage>/<sha256>`; the folder is not created.

    Raises:
        DataError: an input path does not exist.
    """
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(f"{name}={_fingerprint(inputs[name])}\n".encode())
    digest.update(f"code={code_version(code_of(stage), LIBRARIES)}\n".encode())
    return Path(root) / stage / digest.hexdigest()


def reward_files(names: Iterable[str]) -> list[Path]:
    """Source files of rewards given as dotted paths. They are part of the key: editing one restarts training.

    Args:
        names: names of rewards; built-in ones (no dot, no colon) are part of the stage's code, so skipped.

    Returns:
        The source of each module (`package.module:callable` or `package.module.callable`), sorted.

    Raises:
        FileNotFoundError: there is no such module, or it has no source file.
    """
    modules = {name.replace(":", ".").rpartition(".")[0] for name in names}
    files = []
    for module in sorted(modules - {""}):
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.has_location or spec.origin is None:
            raise FileNotFoundError(f"reward module {module!r} has no source file, which checkpoints need")
        files.append(Path(spec.origin))
    return files


def mark_complete(checkpoint: Path) -> None:
    """Writes the completion record of a checkpoint, each file with its size and sha256; call it last.

    It deletes the arguments that a `transformers` trainer saves: they are a pickle, and nothing reads them.
    """
    (checkpoint / "training_args.bin").unlink(missing_ok=True)
    files = {
        path.relative_to(checkpoint).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of_file(path),
        }
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != RECORD
    }
    write_text(json.dumps({"files": files}, indent=2, sort_keys=True), checkpoint / RECORD, durable=True)


def is_complete(checkpoint: Path) -> bool:
    """Whether the completion record is there and every file in it has its recorded size."""
    files = _record(checkpoint)
    return files is not None and all(_size(checkpoint / name) == size for name, (size, _) in files.items())


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and every file has its recorded content; reads all of it."""
    files = _record(checkpoint)
    try:
        return files is not None and all(
            _size(checkpoint / name) == size and sha256_of_file(checkpoint / name) == digest
            for name, (size, digest) in files.items()
        )
    except OSError:
        return False


def latest_checkpoint(folder: Path, *, until: int | None = None) -> Path | None:
    """The newest complete `checkpoint-N` in a folder, by its step N; `None` when there is none.

    Call `discard_unusable` before you resume from it: this looks at sizes only.

    Args:
        folder: folder of the checkpoints.
        until: consider only checkpoints up to this step.
    """
    complete = [
        path for path in _checkpoints(folder) if is_complete(path) and (until is None or _step(path) <= until)
    ]
    return complete[-1] if complete else None


def discard_unusable(folder: Path) -> list[Path]:
    """Deletes and logs checkpoints that can't be resumed from: incomplete ones, and damaged ones.

    All that are complete are read and hashed, so that any of them may be loaded afterwards.

    Returns:
        The paths of the deleted ones.
    """
    gone = []
    for path in _checkpoints(folder):
        if not is_complete(path):
            why = "incomplete (the process was killed while writing it)"
        elif not is_intact(path):
            why = "damaged (its files are not those that were written)"
        else:
            continue
        logger.warning("checkpoint %s is %s: deleted", path.name, why)
        shutil.rmtree(path)
        gone.append(path)
    return gone


def keep_newest(folder: Path, count: int, *, last_good: int | None = None) -> None:
    """Deletes all but the `count` newest complete checkpoints.

    Args:
        folder: folder of the checkpoints.
        count: how many to keep.
        last_good: also keep the newest checkpoint up to this step.
    """
    complete = [path for path in _checkpoints(folder) if is_complete(path)]
    good = None if last_good is None else latest_checkpoint(folder, until=last_good)
    for path in complete[: max(0, len(complete) - count)]:
        if path != good:
            shutil.rmtree(path)


def clear(folder: Path) -> None:
    """Deletes the checkpoints of a stage after its output is written."""
    shutil.rmtree(folder, ignore_errors=True)


def _checkpoints(folder: Path) -> list[Path]:
    """All `checkpoint-N` folders, in order of N."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=_step)


def _record(checkpoint: Path) -> dict[str, tuple[int, str]] | None:
    """Size and sha256 of every file of a complete checkpoint; None without a record that we wrote."""
    try:
        files = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))["files"]
        return {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in files.items()} or None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _step(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _fingerprint(value: Any) -> str:
    """A string that changes when the content of an input changes, and only then."""
    if isinstance(value, Path):
        return sha256_of(value)
    if isinstance(value, list | tuple) and any(isinstance(item, Path) for item in value):
        return json.dumps([_fingerprint(item) for item in value])
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", by_alias=True)
    return json.dumps(value, sort_keys=True, default=str)
