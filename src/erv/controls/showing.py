"""What each control shows instead of a clip.

`shuffled`: another clip of the same data set. `video_only` and `sound_only`: the clip without the other
modality, which is missing from the prompt too, as for a clip that never had it. `silenced`: sound of the same
length in which nothing is heard. That is not the same as no sound: the policy is told that there is some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from erv.manifest import ClipRow
from erv.shards import Clip

NEED_SOUND = ("video_only", "sound_only", "silenced")  # they change nothing for a clip without sound
WITHOUT_WORDS = ("video_only", "silenced")


@dataclass(frozen=True)
class Showing:
    """The clips of one data set under one control.

    Attributes:
        control: its name.
        rows: the clips that are asked about.
        shown: for each, the id of the clip whose frames and sound the policy gets.
        left_out: how many clips the control can't be applied to.
    """

    control: str
    rows: tuple[ClipRow, ...]
    shown: tuple[str, ...]
    left_out: int

    @property
    def video(self) -> bool:
        """Whether the prompt has frames."""
        return self.control != "sound_only"

    @property
    def subtitles(self) -> dict[str, str | None]:
        """What a prompt with subtitles may say, by clip: words go with the sound that they were heard in."""
        said = {row.clip_id: row.subtitle for row in self.rows}
        pairs = zip(self.rows, self.shown, strict=True)
        return {row.clip_id: None if self.control in WITHOUT_WORDS else said[name] for row, name in pairs}

    def clips(self, get: Callable[[str], Clip]) -> Iterator[Clip]:
        """What the policy gets, under the ids of the clips that it is asked about.

        Args:
            get: reads a clip by id, like `ShardReader.get`.
        """
        for row, shown in zip(self.rows, self.shown, strict=True):
            clip = replace(get(shown), clip_id=row.clip_id)
            if self.control == "video_only":
                clip = replace(clip, audio=clip.audio[:0], has_audio=False)
            elif self.control == "silenced":
                clip = replace(clip, audio=np.zeros_like(clip.audio))
            yield clip


def showing(control: str, rows: Sequence[ClipRow], silent: set[str], seed: int) -> Showing:
    """Decides what is shown for the clips of a data set.

    Args:
        control: `shuffled`, `video_only`, `sound_only` or `silenced`.
        rows: its clips.
        silent: ids of those without sound.
        seed: of the order in which clips are exchanged: one cycle, so that none is shown for itself.

    Returns:
        The clips by id. Clips without sound are left out of the controls that take or keep only sound; a
        single clip can't be exchanged.
    """
    ordered = sorted(rows, key=lambda row: row.clip_id)
    if control != "shuffled":
        kept = [row for row in ordered if control not in NEED_SOUND or row.clip_id not in silent]
        ids = tuple(row.clip_id for row in kept)
        return Showing(control, tuple(kept), ids, len(ordered) - len(kept))
    if len(ordered) < 2:
        return Showing(control, (), (), len(ordered))
    cycle = np.random.default_rng(seed).permutation(len(ordered))
    partner = dict(zip(cycle.tolist(), np.roll(cycle, -1).tolist(), strict=True))
    shown = tuple(ordered[partner[place]].clip_id for place in range(len(ordered)))
    return Showing(control, tuple(ordered), shown, 0)
