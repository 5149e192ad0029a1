"""Mutations of the files that hold a workspace's state: none may give a traceback or silent damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from erv.environment import Environment, child_environment, load_environment
from erv.errors import ErvError
from erv.files import read_document, read_parquet
from erv.pipeline import keep_lock, lock_fault, read_lock_entries, repair_lock
from erv.pipeline.lock_file import KEPT
from erv.settings import load_settings
from erv.sources import Lock
from erv.sources.lock import SourceFile
from erv.stack.dvc_remote import read_dvc_config

ROOT = Path(__file__).parents[2]
Mutation = Callable[[bytes, np.random.Generator], bytes]
_ENTRY = """  {name}:
    cmd: python -m stages.{name} --out models/{name}
    deps:
    - path: data/sources/base.lock.json
      hash: md5
      md5: 9dd4e461268c8034f5c8564e155c67a6
      size: 1
    params:
      params.yaml:
        seed: 0
        {name}.rate: 1e-05
    outs:
    - path: models/{name}
      hash: md5
      md5: 9b982d8ce4964b8a5cbff8d2fc38c4b3.dir
      size: 588897
      nfiles: 2
"""
_ODDITIES = (
    b"",
    b"\n",
    b"null\n",
    b"[]\n",
    b"0\n",
    b"{}\n",
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf",
    b"[" * 100_000,
    b"{" * 100_000,
    b'{"a":' * 100_000,
    b"- " * 100_000,
    b"a: 2026-99-99\n",
    b"a: " + b"9" * 5000 + b"\n",
    b"a: !!int ''\n",
    b"a: !!timestamp x\n",
    b"a: !!python/object/apply:os.getcwd []\n",
    b"a: &a [*a, *a]\n",
    b"? [a]\n: 1\n",
    b"<<: 1\n",
)


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bits change."""
    result = bytearray(content)
    for place in rng.integers(0, len(result), int(rng.integers(1, 9))):
        result[place] ^= 1 << int(rng.integers(8))
    return bytes(result)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing."""
    return content[: int(rng.integers(len(content)))]


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """A piece comes twice, or is gone."""
    start, end = sorted(rng.integers(0, len(content), 2).tolist())
    return content[:start] + content[start:end] * int(rng.choice([0, 2])) + content[end:]


def noise(content: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes in between."""
    place = int(rng.integers(len(content)))
    return content[:place] + rng.bytes(int(rng.integers(1, 40))) + content[place:]


def odd_line(content: bytes, rng: np.random.Generator) -> bytes:
    """A line of something unexpected, instead of a line or of all."""
    odd = _ODDITIES[int(rng.integers(len(_ODDITIES)))]
    if rng.random() < 0.5:
        return odd
    lines = content.splitlines(keepends=True)
    lines[int(rng.integers(len(lines)))] = odd
    return b"".join(lines)


def odd_value(content: bytes, rng: np.random.Generator) -> bytes:
    """A value becomes another one of the same or another type."""
    lines = content.splitlines(keepends=True)
    number = int(rng.integers(len(lines)))
    for sign in (b": ", b"=", b" = "):
        name, found, _ = lines[number].partition(sign)
        if found:
            values = (
                b"",
                b"-1",
                b"1e999",
                b".nan",
                b"[]",
                b"{}",
                b"x y",
                b"http://[",
                b"http://h:99999",
                b"\x07",
            )
            lines[number] = name + sign + values[int(rng.integers(len(values)))] + b"\n"
            break
    return b"".join(lines)


MUTATIONS: tuple[Mutation, ...] = (flip, truncate, splice, noise, odd_line, odd_value)


@dataclass
class StateReport:
    """What became of the mutations.

    Attributes:
        outcomes: per kind of file, how many mutations were read and refused; of locks, restored.
        faults: what must not happen: tracebacks and silent damage.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The figures, for a terminal."""
        counts = {
            name: ", ".join(f"{n} {what}" for what, n in sorted(found.items()))
            for name, found in self.outcomes.items()
        }
        return [*(f"  {name:22} {text}" for name, text in counts.items()), *self.faults]


def write_workspace(folder: Path) -> Path:
    """A workspace with all that is mutated; no servers."""
    for path in ("params.yaml", "dvc.yaml", ".dvc/config"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    (folder / "src").symlink_to(ROOT / "src")  # the code of another folder is refused
    (folder / ".dvc/config.local").write_text(
        "['remote \"erv\"']\n    url = s3://erv-dvc\n    verify = True\n"
    )
    environment = Environment(folder, s3_endpoint="http://127.0.0.1:9", s3_access_key="k", s3_secret_key="s")
    (folder / ".erv").mkdir()
    lines = [f"{name}={value}\n" for name, value in environment.variables().items()]
    (folder / ".erv/stack.env").write_text("# the stack\n" + "".join(lines))
    files = tuple(SourceFile(f"clips/{n}.mp4", n, f"{n:064x}") for n in range(1, 6))
    Lock("mafw", "s3://erv-raw/mafw", files).save(folder / "data/sources/mafw.lock.json")
    entries = "".join(_ENTRY.format(name=name) for name in ("one", "two", "three"))
    (folder / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{entries}")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # DVC asks for it
    keep_lock(folder)
    table = pa.table({"sentence": ["He smiles.", "She shouts."] * 40, "labels": [["happiness"], []] * 40})
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(table, folder / "data/sentences.parquet", compression="zstd")
    (folder / "data/sentences.json").write_text(json.dumps({"sentences": 2, "teachers": {"a": 1}}, indent=2))
    return folder


def _lock_of_dvc(path: Path, whole: bytes) -> str:
    """Reads a mutated `dvc.lock`, with and without a good copy; returns what became of it."""
    root, content = path.parent, path.read_bytes()
    fault = lock_fault(root)
    if repair_lock(root) is not None:
        assert fault is not None
        assert path.read_bytes() == whole
        return "restored"
    assert fault is None
    assert path.read_bytes() == content
    assert (root / KEPT).read_bytes() == content
    read_lock_entries(path)
    return "read"


def _read(path: Path, whole: bytes) -> str:
    name = path.name
    if name == "stack.env":
        variables = child_environment(load_environment(path.parents[1], process={}), base={})
        assert not [value for value in variables.values() if "\0" in value]
    elif name == "dvc.lock":
        return _lock_of_dvc(path, whole)
    elif name == "params.yaml":
        load_settings(path)
    elif name.endswith(".lock.json"):
        Lock.load(path)
    elif name == "sentences.parquet":
        read_parquet(path, "distill").to_pylist()
    elif name == "sentences.json":
        read_document(path, "distill")
    else:
        read_dvc_config(path)
    return "read"


FILES = (
    ".erv/stack.env",
    "dvc.lock",
    "params.yaml",
    "data/sources/mafw.lock.json",
    ".dvc/config",
    ".dvc/config.local",
    "data/sentences.parquet",
    "data/sentences.json",
)
COMMANDS = (("doctor",), ("params",), ("params", "reruns", "seed"), ("publish",), ("lineage", "mafw/00001"))


def fuzz_state(folder: Path, mutations: int, seed: int, *, commands: int) -> StateReport:
    """Mutates one file at a time and reads it.

    Args:
        folder: for the workspace; empty.
        mutations: how many, the files and kinds taking turns.
        seed: of the mutations.
        commands: how many of them are also given to a real process of `erv`.
    """
    workspace = write_workspace(folder)
    whole = {name: (workspace / name).read_bytes() for name in FILES}
    report = StateReport()
    for number in range(mutations):
        name = FILES[number % len(FILES)]
        rng = np.random.default_rng([seed, number])
        mutation = MUTATIONS[(number // len(FILES)) % len(MUTATIONS)]
        path = workspace / name
        path.write_bytes(mutation(whole[name], rng))
        try:
            if number < commands:
                _command(workspace, COMMANDS[number % len(COMMANDS)], f"{name} {number}", report)
                path.write_bytes(mutation(whole[name], np.random.default_rng([seed, number])))
            outcome = _read(path, whole[name])
        except ErvError as error:
            outcome = "refused"
            if name not in str(error) and path.name not in str(error):
                report.faults.append(f"{name} {number} {mutation.__name__}: not named in {error}")
        except Exception as error:
            outcome = "TRACEBACK"
            report.faults.append(
                f"{name} {number} {mutation.__name__}: {type(error).__name__}: {error}"[:300]
            )
        report.outcomes[name][outcome] += 1
        path.write_bytes(whole[name])
        if name == "dvc.lock":
            (workspace / KEPT).write_bytes(whole[name])
    return report


def _command(workspace: Path, arguments: tuple[str, ...], what: str, report: StateReport) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from erv.cli import main; main()", *arguments],
        cwd=workspace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    said = result.stdout + result.stderr
    report.outcomes[f"erv {arguments[0]}"]["ended well" if result.returncode == 0 else "with an error"] += 1
    if "Traceback" in said or result.returncode not in (0, 1, 2):
        report.faults.append(
            f"{what}: erv {' '.join(arguments)} ended with {result.returncode}: {said[-600:]}"
        )
    if arguments == ("doctor",) and "  python  " not in said:
        report.faults.append(f"{what}: erv doctor says nothing: {said[-600:]}")
