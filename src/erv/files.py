"""Files and folders that are written whole or not at all, their hashes, and JSON passed between stages.

Everything is written under a temporary name and renamed when it is complete. There are two kinds of temporary
names:

- `.NAME.tmp`, for what one process writes, such as the output of a stage. The next attempt overwrites what a
  killed process left.
- `temporary_name`, for what several processes may write at once (`shared`). It contains the machine, the
  process and a random part, so that `sweep` can remove what a killed process left. The machine is included
  because several machines may share the file system, and a process id is unique only on one of them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import DataError, note_write

if TYPE_CHECKING:
    import pyarrow as pa

# Files that can run code when they are loaded; none of our model folders has one.
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pkl", ".pickle", ".pt", ".pth"})

_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]{1,10})-[0-9a-f]{8}")
# A file of another machine (e.g. of a removed container) that is untouched for this long has no owner.
_ABANDONED_SECONDS = 7 * 24 * 3600.0
_CHUNK = 1 << 20
_DEEPEST = 200


@contextlib.contextmanager
def whole_file(path: Path, *, shared: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which is renamed to `path` if the block succeeds.

    Args:
        path: the file; its folder is created if missing.
        shared: other processes may write the same file at the same time.
        durable: flush the content to disk (fsync) before the rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, shared)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except Exception as error:
        note_write(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path`; it is removed at the end unless the block moved it.

    Args:
        path: the path that the temporary name is made from.
        shared: other processes may do the same at the same time.
    """
    temporary = _temporary(path, shared)
    remove(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except Exception as error:
        note_write(error, path)
        raise
    finally:
        remove(temporary)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`; it replaces the whole of `path` if the block succeeds."""
    with scratch_folder(path) as folder:
        yield folder
        # Rename first: a process killed while deleting must not leave half of the old folder.
        old = path.with_name(f".{path.name}.old")
        remove(old)
        with contextlib.suppress(FileNotFoundError):
            path.replace(old)
        folder.replace(path)
        remove(old)


@contextlib.contextmanager
def model_folder(path: Path) -> Iterator[Path]:
    """Like `whole_folder`, for a `from_pretrained` folder: all its weights must be safetensors.

    Raises:
        DataError: the block wrote a file that can run code when it is loaded.
    """
    with whole_folder(path) as folder:
        yield folder
        pickles = sorted(file for file in folder.rglob("*") if file.suffix in PICKLES)
        if pickles:
            name = pickles[0].relative_to(folder)
            raise DataError(f"{path}: {name} runs code when it is loaded; save as safetensors")


def remove(path: Path) -> None:
    """Removes a file, link or folder as far as permissions allow; a missing one is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # another process removed it, or another user owns it
            path.unlink()


def temporary_name(path: Path) -> Path:
    """A new name beside `path`, for a file or folder that will replace it when complete."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}")


def sweep(cache: Path) -> None:
    """Removes what killed processes left in a content-addressed cache.

    Only entries with a `temporary_name` are removed: those of a process of this machine that has ended, and
    those of another machine that are untouched for a week. Partial downloads of large files have other names
    and stay, so that the download can resume.
    """
    _sweep(_entries(cache))


def sweep_beside(path: Path) -> None:
    """As `sweep`, for what was to become one file or folder, written under a `temporary_name`."""
    _sweep(path.parent.glob(f".{glob.escape(path.name)}.*"))


def _sweep(paths: Iterable[Path]) -> None:
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is not None and _is_dead(path, match["machine"], int(match["process"])):
            remove(path)


def write_text(text: str, path: Path, *, shared: bool = False, durable: bool = False) -> None:
    """Writes a text file whole or not at all, see `whole_file`."""
    with whole_file(path, shared=shared, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Writes a document as JSON, in the order of its keys."""
    write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", path)


def read_document(path: Path, stage: str) -> dict[str, Any]:
    """Reads a document.

    Args:
        path: path of the document.
        stage: the stage that writes it, for messages.

    Raises:
        DataError: the file is missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro {stage}` first") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); run `dvc repro {stage}` again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not what {stage} writes; run `dvc repro {stage}` again")
    return content


def read_parquet(path: Path, stage: str, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """Reads a parquet file that a stage wrote.

    Args:
        path: path of the file.
        stage: the stage that writes it, for messages.
        columns: columns that it must have; only they are read. None for all that there are.
        **options: of `pyarrow.parquet.read_table`.

    Raises:
        DataError: the file is missing, damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = None if columns is None else list(columns)
    try:
        missing = sorted({*(wanted or ())} - {*pq.read_schema(path).names})
        table = None if missing else pq.read_table(path, columns=wanted, **options)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro {stage}` first") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: not a readable parquet file ({reason}); {_again(stage)}") from None
    if table is None:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; {_again(stage)}")
    return table


def _again(stage: str) -> str:
    return f"delete it and run `dvc repro {stage}` again"


def parse_yaml(content: bytes) -> Any:
    """The value of a YAML document; nothing in it can run code.

    Raises:
        ValueError: not UTF-8 or not YAML, in one line.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is seven times faster
    try:
        text = content.decode("utf-8-sig")
        if _depth(text) > _DEEPEST:  # of which the scanners take quadratic time
            raise RecursionError
        depth = 0
        # What builds the value recurses, and in C nothing stops it before the process crashes; events don't.
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise RecursionError
        return _construct(loader(text))
    except UnicodeDecodeError as error:
        raise ValueError(f"can't be read as UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ValueError("not valid YAML (nested too deeply)") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML lets the errors of its own converters through, as for the date 2026-99-99.
        raise ValueError(f"not valid YAML ({' '.join(str(error).split())})") from None


def _construct(loader: Any) -> Any:
    try:
        node = loader.get_single_node()
        _refuse_repeated_keys(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_repeated_keys(root: Any) -> None:
    """PyYAML takes the last of several values of a key, in silence.

    Raises:
        ValueError: a mapping has a key twice.
    """
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # reached by an alias too
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names and key.value != "<<":
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} is there already")
                names.add(key.value)
            waiting += [part for pair in node.value for part in pair]


def _depth(text: str) -> int:
    """How deeply brackets are nested, those in quotes included."""
    deepest = depth = 0
    for bracket in re.finditer(r"[][{}]", text):
        depth = max(0, depth + (1 if bracket[0] in "[{" else -1))
        deepest = max(deepest, depth)
    return deepest


def sha256_of_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits.

    Args:
        path: path of the file.
        on_bytes: called with the size of each chunk read; it may raise to stop.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, or of the names and contents of all files below a folder.

    Raises:
        DataError: there is nothing at `path`.
    """
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: not found; run the stage that writes it first")
    files = (item for item in path.rglob("*") if item.is_file() and "__pycache__" not in item.parts)
    lines = (f"{file.relative_to(path).as_posix()}={sha256_of_file(file)}\n" for file in sorted(files))
    return sha256_of_text("".join(lines))


def sha256_of_text(text: str) -> str:
    """The SHA-256 of a text encoded as UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def md5_of_file(path: Path) -> str:
    """The MD5 of a file's bytes, 32 hexadecimal digits (identifies content, does not protect it)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def content_digest(path: str | Path) -> str:
    """DVC's hash of a file or folder, at most 36 characters, so that MLflow shows the hash in `dvc.lock`.

    A folder's hash is the MD5 of the JSON list of its files' hashes and relative paths, followed by `.dir`
    (dvc_data.hashfile.tree.Tree.as_bytes, dvc-data 3.18).

    Raises:
        DataError: there is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return md5_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: not found; run the stage that writes it first")
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    entries = [{"md5": md5_of_file(files[name]), "relpath": name} for name in sorted(files)]
    listing = json.dumps(entries, sort_keys=True).encode("utf-8")
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def followed(path: Path) -> Path:
    """Where a path leads, with all links followed and all of it there.

    Raises:
        FileNotFoundError: it leads nowhere or to itself. Python tells the latter as a RuntimeError, and since
            3.13 as an OSError of its own.
        OSError: it may not be looked at.
    """
    try:
        return path.resolve(strict=True)
    except RuntimeError:
        raise FileNotFoundError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ELOOP, error.strerror, str(path)) from None
        raise


def _temporary(path: Path, shared: bool) -> Path:
    return temporary_name(path) if shared else path.with_name(f".{path.name}.tmp")


def _entries(cache: Path) -> Iterator[Path]:
    """The entries of `cache/XX` and `cache/incoming/SOURCE` with names that begin with a dot."""
    for pattern in ("[0-9a-f][0-9a-f]/.*", "incoming/*/.*"):
        with contextlib.suppress(FileNotFoundError):  # a folder was removed during listing
            yield from list(cache.glob(pattern))


def _is_dead(path: Path, machine: str, process: int) -> bool:
    import psutil

    if machine == _machine():
        return not psutil.pid_exists(process)
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS
    except OSError:  # it has been completed or removed
        return False


def _machine() -> str:
    return sha256_of_text(platform.node())[:8]
