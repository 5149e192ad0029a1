"""Features of clips, encoded by the frozen towers once for all policies of a run, and kept on disk.

Policies that come from the same base have the same towers: training freezes them. So the features of a piece
are kept in `.erv/features/<towers>/<piece>/`, where `<towers>` is the hash of everything that decides them
(the towers' weights, buffers, configuration and code, and the CPU threads), and `<piece>` that of its
clips. A policy with other towers can't find them. An entry counts only with its completion record and is
verified before it is used. It is written under a lock, so of two policies that are evaluated at the same
time one encodes and the other reads.

The store is bounded. When it is full, the entries that were unused for longest make room.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from erv.checkpoints import RECORD, is_intact, mark_complete
from erv.files import remove, sha256_of_text, whole_folder

ROOT = Path(".erv/features")
_FILE = "features.safetensors"

Tensors = dict[str, torch.Tensor]


def towers_key(policy: Any, code: str) -> str:
    """Hex sha256 of what decides the features of a clip, besides the clip.

    Args:
        policy: a policy as `load_policy` returns it: only its towers are frozen.
        code: what computes, from `erv.determinism.code_version`.
    """
    digest = hashlib.sha256(code.encode())
    frozen = [(name, weight) for name, weight in policy.model.named_parameters() if not weight.requires_grad]
    # Buffers decide features as weights do: running means, position tables.
    for name, weight in sorted([*frozen, *policy.model.named_buffers()], key=lambda item: item[0]):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    # Sums are split among threads, so their number can change the last bits.
    threads = torch.get_num_threads() if policy.device.type == "cpu" else None
    described = [policy.model.config.to_dict(), policy.processor.to_dict(), policy.device.type, threads]
    digest.update(json.dumps(_without_names(described), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _without_names(value: Any) -> Any:
    """A description without the folder that a model was loaded from."""
    if isinstance(value, dict):
        return {name: _without_names(item) for name, item in value.items() if name != "_name_or_path"}
    return [_without_names(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class FeatureStore:
    """The features that one kind of towers has encoded.

    Attributes:
        towers: from `towers_key`.
        shards: hash of the shards that the clips are read from.
        most_bytes: size that the store, with the features of all towers, may have; 0 keeps nothing.
        root: parent of the folders of all towers.
    """

    towers: str
    shards: str
    most_bytes: int
    root: Path = ROOT

    def get(self, clip_ids: Sequence[str], encode: Callable[[], Tensors]) -> Tensors:
        """The features of clips, [clips, ...] by name: those that are kept, or else from `encode`.

        Args:
            clip_ids: the clips, in order.
            encode: computes them; called only where they are not kept.
        """
        if self.most_bytes <= 0:
            return encode()
        from filelock import FileLock

        folder = self.root / self.towers / sha256_of_text(json.dumps([self.shards, *clip_ids]))
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Few locks, never deleted: a lock that is deleted while someone waits for it protects nothing.
        with FileLock(folder.with_name(f"{folder.name[:1]}.lock")):
            kept = _read(folder)
            if kept is None:
                kept = encode()
                if sum(value.nbytes for value in kept.values()) <= self.most_bytes:
                    _write(kept, folder)
                    _make_room(self.root, self.most_bytes, folder)
        return kept


def _read(folder: Path) -> Tensors | None:
    from safetensors.torch import load_file

    if not is_intact(folder):
        return None
    try:
        with contextlib.suppress(OSError):
            os.utime(folder / RECORD)  # it was used
        kept: Tensors = load_file(folder / _FILE)
    except OSError:  # it had to make room for another in the meantime
        return None
    return kept


def _write(features: Tensors, folder: Path) -> None:
    from safetensors.torch import save_file

    with whole_folder(folder) as whole:
        save_file({name: value.cpu().contiguous() for name, value in features.items()}, whole / _FILE)
        mark_complete(whole)


def _make_room(root: Path, most_bytes: int, newest: Path) -> None:
    """Removes the entries that were unused for longest until the rest fits."""
    entries = []
    for record in root.glob(f"*/*/{RECORD}"):
        with contextlib.suppress(OSError):  # another process has just removed it
            entries.append((record.stat().st_mtime_ns, (record.parent / _FILE).stat().st_size, record.parent))
    total = sum(size for _, size, _ in entries)
    for _, size, folder in sorted(entries):
        if total <= most_bytes:
            break
        if folder != newest:
            remove(folder)
            total -= size
