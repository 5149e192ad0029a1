"""Which clips of a run are in two splits, by content or by what they show, over all its data sets.

A clip is used for the test, to tune (validation) or to train; the cold start's explanations count as
training. Two clips with different uses must not be the same. Of such a pair, the clip that is tested on
always stays; the one that is trained or tuned on is at fault.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.errors import DataError
from erv.exclusions import Excluded
from erv.leakage.fingerprints import Fingerprint
from erv.leakage.similar import matches
from erv.manifest import ClipRow
from erv.progress import meter
from erv.settings import LeakageSettings, RolesSettings

logger = logging.getLogger(__name__)

USES = ("train", "validation", "test")  # of a pair, the clip with the earlier use is at fault
_NAMED = 5  # pairs in a sentence


@dataclass(frozen=True)
class Leak:
    """A clip that is trained or tuned on, and one that it must not equal.

    Attributes:
        clip: the clip at fault.
        use: train or validation.
        twin: the clip that stays.
        twin_use: validation or test.
        frames: correlation of the frames; None if the files have the same content.
        sound: correlation of the sound; None for the same content, or if there is no sound to compare.
    """

    clip: ClipRow
    use: str
    twin: ClipRow
    twin_use: str
    frames: float | None = None
    sound: float | None = None

    @property
    def alike(self) -> str:
        """In what the clips are the same."""
        if self.frames is None:
            return "same content"
        if self.sound is None:
            return f"same frames ({self.frames:.3f}), no sound to compare"
        return f"same frames ({self.frames:.3f}) and sound ({self.sound:.2f})"

    def text(self) -> str:
        """The pair in one line."""
        return f"{_place(self.clip, self.use)} = {_place(self.twin, self.twin_use)}: {self.alike}"


def used(manifests: Mapping[str, Sequence[ClipRow]], roles: RolesSettings) -> dict[str, list[ClipRow]]:
    """The clips of a run by their use, each once.

    Args:
        manifests: the clips of every data set with a role, by its name.
        roles: the section `roles`.
    """
    found: dict[str, list[ClipRow]] = {use: [] for use in USES}
    for name, rows in manifests.items():
        for row in rows:
            use = _use(name, row.split, roles)
            if use is not None:
                found[use].append(row)
    return found


def _use(dataset: str, split: str, roles: RolesSettings) -> str | None:
    if split == "test" and dataset in roles.test:
        return "test"
    if split == "validation" and dataset in (*roles.train, *roles.test):
        return "validation"
    # Explanations of every split teach the verifier.
    if dataset == roles.cold_start or (split == "train" and dataset in roles.train):
        return "train"
    return None


def find_leaks(
    clips: Mapping[str, Sequence[ClipRow]],
    fingerprint_of: Callable[[ClipRow], Fingerprint | None],
    settings: LeakageSettings,
) -> list[Leak]:
    """The clips that are trained or tuned on and equal one of a later use, each with its closest twin.

    Args:
        clips: by use, from `used`.
        fingerprint_of: the fingerprint of a clip; None if it is in quarantine, where only its content counts.
        settings: the section `leakage`.

    Returns:
        Sorted by data set and clip id.
    """
    best: dict[tuple[str, str], Leak] = {}
    for leak in [*_by_content(clips), *_by_look(clips, fingerprint_of, settings)]:
        key = (leak.clip.dataset, leak.clip.clip_id)
        if key not in best or _closeness(leak) > _closeness(best[key]):
            best[key] = leak
    return [best[key] for key in sorted(best)]


def _closeness(leak: Leak) -> tuple[int, float, float]:
    """A twin in the test split first, then equal content, then similarity."""
    similar = 2.0 if leak.frames is None else leak.frames
    return USES.index(leak.twin_use), similar, leak.sound or 0.0


def _pairs_of_uses() -> Iterator[tuple[str, str]]:
    """The use at fault, and the later one."""
    for place, use in enumerate(USES):
        for later in USES[place + 1 :]:
            yield use, later


def _by_content(clips: Mapping[str, Sequence[ClipRow]]) -> Iterator[Leak]:
    by_content: dict[str, dict[str, ClipRow]] = defaultdict(dict)
    for use in USES:
        for row in clips[use]:
            by_content[use].setdefault(row.sha256, row)
    for use, later in _pairs_of_uses():
        for row in clips[use]:
            twin = by_content[later].get(row.sha256)
            if twin is not None:
                yield Leak(row, use, twin, later)


def _by_look(
    clips: Mapping[str, Sequence[ClipRow]],
    fingerprint_of: Callable[[ClipRow], Fingerprint | None],
    settings: LeakageSettings,
) -> Iterator[Leak]:
    shown: dict[str, list[ClipRow]] = {use: [] for use in USES}
    prints: dict[str, list[Fingerprint]] = {use: [] for use in USES}
    total = sum(len(clips[use]) for use in USES)
    with meter("leakage", total, "clips", logger, patient=True) as bar:
        for use in USES:
            for row in clips[use]:
                found = fingerprint_of(row)
                if found is not None:
                    shown[use].append(row)
                    prints[use].append(found)
                bar.update()
    for use, later in _pairs_of_uses():
        for match in matches(prints[later], prints[use], settings):
            row, twin = shown[use][match.other], shown[later][match.one]
            if row.sha256 != twin.sha256:
                yield Leak(row, use, twin, later, round(match.frames, 3), _rounded(match.sound))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def record(
    clips: Mapping[str, Sequence[ClipRow]],
    leaks: Sequence[Leak],
    settings: LeakageSettings,
    roles: RolesSettings,
) -> dict[str, Any]:
    """What was compared and found, as a document."""
    return {
        "action": settings.action,
        "clips": {use: len(clips[use]) for use in USES},
        "same_content": sum(leak.frames is None for leak in leaks),
        "same_look": sum(leak.frames is not None for leak in leaks),
        "excluded": len(exclusions(leaks, settings, roles)),
        "unread": len(leaks) - len(_read(leaks, roles)),
        "found": [
            {
                "clip": f"{leak.clip.dataset}/{leak.clip.clip_id}",
                "use": leak.use,
                "uri": leak.clip.uri,
                "twin": f"{leak.twin.dataset}/{leak.twin.clip_id}",
                "twin_use": leak.twin_use,
                "twin_uri": leak.twin.uri,
                "alike": leak.alike,
            }
            for leak in leaks
        ],
    }


def exclusions(leaks: Sequence[Leak], settings: LeakageSettings, roles: RolesSettings) -> list[Excluded]:
    """The clips that training leaves out; none unless `leakage.action` is exclude.

    Of validation clips, training reads those of the cold start alone. Others are only in the record, so that
    new test clips which equal them train nothing again.
    """
    if settings.action != "exclude":
        return []
    return [Excluded(leak.clip.dataset, leak.clip.clip_id) for leak in _read(leaks, roles)]


def _read(leaks: Sequence[Leak], roles: RolesSettings) -> list[Leak]:
    """Those whose clips a training reads."""
    return [leak for leak in leaks if leak.use == "train" or leak.clip.dataset == roles.cold_start]


def require_none(leaks: Sequence[Leak], settings: LeakageSettings, roles: RolesSettings) -> None:
    """Acts on `leakage.action`: warns, or raises an error that names the clips of both sides.

    Raises:
        DataError: there are leaks, and the action is fail.
    """
    if not leaks:
        return
    if settings.action == "exclude":
        if read := _read(leaks, roles):
            logger.warning("left out of training: %s", _listed(read))
        return
    one = len(leaks) == 1
    said = (
        f"{'1 clip is' if one else f'{len(leaks)} clips are'} in two splits: {_listed(leaks)};"
        " data/leakage.json lists all"
    )
    if settings.action == "warn":
        logger.warning("%s", said)
        return
    raise DataError(
        f"{said}. Take one of each pair out of its source and pin it again; or set leakage.action to exclude,"
        " which leaves out the clip that is trained or tuned on, or to warn"
    )


def _listed(leaks: Sequence[Leak]) -> str:
    text = "; ".join(leak.text() for leak in leaks[:_NAMED])
    rest = len(leaks) - _NAMED
    return f"{text}; and {rest} more" if rest > 0 else text


def _place(row: ClipRow, use: str) -> str:
    return f"{row.dataset}/{row.clip_id} ({use}, {row.uri})"
