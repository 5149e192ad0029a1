"""Finished pieces of completions, kept for the next evaluation whether this one is interrupted or completes.

DVC deletes the outputs of a stage before it runs, so pieces are kept outside them, in
`.erv/completions/<policy>/<data set>/<key>/<number>/`. The key is the hash of everything that decides a
completion. What only decides how completions are judged is no part of it: another judge asks no policy again.
A piece counts only with its completion record, which is written last, and is verified before it is reused.

The pieces of an evaluation stay until one of the same policy and data set with another key completes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erv.checkpoints import LIBRARIES, is_intact, mark_complete
from erv.completions.pieces import Asked, Completed, Decoding, Piece
from erv.determinism import code_of, code_version
from erv.files import remove, sha256_of, whole_folder

logger = logging.getLogger(__name__)

ROOT = Path(".erv/completions")
_FILE = "completions.json"
# What the stage evaluate depends on only for reading and judging completions.
JUDGING = (
    "data/label_spaces",
    "src/erv/chat",
    "src/erv/evaluate",
    "src/erv/labels",
    "src/erv/sentences.py",
    "src/erv/settings/chat.py",
    "src/erv/settings/judges.py",
    "src/erv/sources",
    "src/erv/syntax.py",
    "src/erv/verifier",
    "stages/evaluate.py",
)


def generating_code() -> tuple[str, ...]:
    """The code of the stage evaluate that decides a completion: all but `JUDGING`."""
    return tuple(path for path in code_of("evaluate") if path not in JUDGING)


def completions_key(
    policy: Path, shards: str, clips: Sequence[Asked], decoding: Decoding, **runtime: Any
) -> str:
    """Hex sha256 of everything that decides the completions of a data set; processes don't.

    Args:
        policy: its folder.
        shards: hash of the data set's shards.
        clips: what is asked about which clips.
        decoding: how completions are generated.
        **runtime: device, precision and threads.

    Raises:
        DataError: there is no such folder.
    """
    digest = hashlib.sha256(code_version(generating_code(), LIBRARIES).encode())
    inputs = [sha256_of(policy), shards, asdict(decoding), runtime, [asdict(clip) for clip in clips]]
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    return digest.hexdigest()


class KeptPieces:
    """The pieces of one policy and data set.

    Args:
        policy: name of the policy.
        dataset: name of the data set.
        key: from `completions_key`.
        root: parent of these folders.

    Attributes:
        folder: where the pieces are.
    """

    def __init__(self, policy: str, dataset: str, key: str, root: Path = ROOT) -> None:
        self.folder = root / policy / dataset / key

    def read(self, piece: Piece) -> list[Completed] | None:
        """The completions of a piece, in the order of its clips; None if it is not kept whole."""
        folder = self._of(piece)
        if not is_intact(folder):
            if folder.exists():
                logger.warning("%s is damaged: its clips are answered again", folder)
                remove(folder)
            return None
        try:
            rows = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            found = [Completed(row["clip_id"], row["completion"], tuple(row["samples"])) for row in rows]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if [item.clip_id for item in found] == [clip.clip_id for clip in piece.clips] else None

    def write(self, piece: Piece, completed: Sequence[Completed]) -> None:
        """Keeps a piece; its record is written last, and then the folder gets its name."""
        with whole_folder(self._of(piece)) as whole:
            rows = [asdict(item) for item in completed]
            (whole / _FILE).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
            mark_complete(whole)

    def remove_others(self) -> None:
        """Removes the pieces of this policy and data set that have another key."""
        for path in sorted(self.folder.parent.iterdir()) if self.folder.parent.is_dir() else []:
            if path.is_dir() and path != self.folder:
                remove(path)

    def _of(self, piece: Piece) -> Path:
        return self.folder / f"{piece.number:05d}"
