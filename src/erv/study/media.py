"""The clips of a study: fetched as they were pinned, and made playable under their blinded names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from erv.errors import DataError
from erv.files import sha256_of_file
from erv.manifest import ClipRow, read_manifests
from erv.media.limits import MediaError
from erv.media.workers import isolated
from erv.progress import meter
from erv.sources import LOCKS, Lock, fetch_all, store_for
from erv.study.candidates import Candidate
from erv.study.playable import PLAYABLE, PlayTask, load, playable

logger = logging.getLogger(__name__)

MANIFESTS = Path("data/manifest")
_SECONDS, _MEMORY_MB = 120.0, 2000


class Clips:
    """The clips of the data sets, by what the manifests say.

    Args:
        datasets: names.
        workers: processes that make clips playable.

    Raises:
        DataError: a manifest or a lock is missing or damaged.
    """

    def __init__(self, datasets: Sequence[str], workers: int) -> None:
        self._workers = workers
        manifests = read_manifests(MANIFESTS, list(datasets))
        self._rows = {(row.dataset, row.clip_id): row for rows in manifests.values() for row in rows}
        self._locks = {name: Lock.load(LOCKS / f"{name}.lock.json") for name in datasets}

    def fault(self, clip: Candidate) -> str | None:
        """Why a clip can't be shown, as far as its row says.

        Raises:
            DataError: it isn't in the manifest, or has another content there than when it was evaluated.
        """
        row = self._rows.get((clip.dataset, clip.clip_id))
        if row is None or (clip.sha256 is not None and clip.sha256 != row.sha256):
            raise DataError(
                f"clip {clip.clip_id!r} of {clip.dataset}: not in the manifest as it was evaluated; run"
                " `dvc repro evaluate`"
            )
        return None if row.media == "video" else "a folder of frames has neither sound nor pace"

    def write(
        self, clips: Sequence[Candidate], folder: Path, names: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Writes clips as `NAME.mp4`.

        Args:
            clips: of which none has a `fault`.
            folder: that exists.
            names: blinded, by data set and clip.

        Returns:
            SHA-256 of the files by blinded name, and why the others can't be shown by data set and clip.

        Raises:
            DataError, StorageError: a clip can't be fetched.
        """
        written: dict[str, str] = {}
        failed: dict[str, str] = {}
        with meter("clips of the study", len(clips), "clips", logger) as bar:
            for dataset in sorted({clip.dataset for clip in clips}):
                mine = [clip for clip in clips if clip.dataset == dataset]
                rows = [self._rows[dataset, clip.clip_id] for clip in mine]
                for clip, result in zip(mine, self._made(rows, self._locks[dataset]), strict=True):
                    if isinstance(result, str):
                        failed[clip.name] = result
                    else:
                        path = folder / f"{names[clip.name]}.mp4"
                        path.write_bytes(result)
                        written[names[clip.name]] = sha256_of_file(path)
                    bar.update()
        return written, failed

    def _made(self, rows: Sequence[ClipRow], lock: Lock) -> list[bytes | str]:
        """The playable files of clips, or why there are none."""
        fetched = fetch_all(rows, lock, store_for([lock.uri]))
        outcomes = isolated(
            playable,
            (PlayTask((path,)) for path in fetched),
            workers=self._workers,
            seconds=_SECONDS,
            memory_mb=_MEMORY_MB,
            expected=(MediaError,),
            prepare=load,
            confined=True,
            form=PLAYABLE,
        )
        with closing(outcomes):
            return [
                outcome.result.tobytes() if outcome.result is not None else str(outcome.failure)
                for outcome in outcomes
            ]


def check_media(folder: Path, media: Mapping[str, str]) -> None:
    """Checks that the clips of a study are there and as the plan says.

    Args:
        folder: of the clips.
        media: SHA-256 by blinded name.

    Raises:
        DataError: one is missing or has another content.
    """
    for name, sha256 in sorted(media.items()):
        path = folder / f"{name}.mp4"
        if not path.is_file():
            raise DataError(f"{path}: not found; `dvc pull {folder}.dvc` or `dvc checkout {folder}.dvc`")
        if sha256_of_file(path) != sha256:
            raise DataError(f"{path}: not the clip that the plan names; `dvc checkout {folder}.dvc`")
