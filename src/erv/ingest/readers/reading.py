"""What every reader returns, and how lists of clips are joined with the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from erv.errors import DataError
from erv.ingest.readers.places import lookalikes
from erv.sources import Lock

OFFICIAL_FOLDS = range(1, 6)
_SHOWN = 5
Folds = Mapping[int, Mapping[str, Mapping[str, int]]]
Severity = Literal["error", "warning"]
Expect = Literal["full", "subset"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of an official list, whether or not the source has the clip.

    Attributes:
        clip_id: unique in the data set.
        split: train, validation or test.
        label: canonical name.
        raw_label: as written.
        where: file and line, e.g. `label/single_trainset_1.csv:2`.
    """

    clip_id: str
    split: str
    label: str
    raw_label: str
    where: str


Listing = Mapping[int, Sequence[Listed]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip of the chosen fold that the source has.

    Attributes:
        clip_id: unique in the data set.
        split: train, validation or test.
        label: canonical name.
        raw_label: as written in the file.
        path: of the clip, or of its folder if media is frames, relative to the source.
        media: video or frames.
        caption: a human description, or None.
        completion: the target completion of a reasoning clip, or None.
        label_from: the file and line that gave the label.
        split_from: the file and line that gave the split, or the rule.
        caption_from: the file and line that gave the caption, or None.
        subtitle: what is said in the clip, or None.
    """

    clip_id: str
    split: str
    label: str
    raw_label: str
    path: str
    media: str = "video"
    caption: str | None = None
    completion: str | None = None
    label_from: str = ""
    split_from: str = ""
    caption_from: str | None = None
    subtitle: str | None = None


@dataclass(frozen=True, slots=True)
class Excluded:
    """A listed clip that can't be used: why, and where it is listed."""

    clip_id: str
    reason: str
    listed_in: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the source.

    Attributes:
        name: an identifier, e.g. `listed_but_absent`.
        success: whether the finding matches the expectation.
        severity: error (ingest fails) or warning.
        expected: in words, with figures.
        found: in words, with figures; names the file or the first clips.
        clips: the clips concerned, sorted; the first hundred of many.
        hint: what to do if it failed.
    """

    name: str
    success: bool
    severity: Severity
    expected: str
    found: str
    clips: tuple[str, ...] = ()
    hint: str = ""

    def sentence(self) -> str:
        """The check in one sentence."""
        return f"{self.found}; expected {self.expected}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Reading:
    """A data set as read.

    Attributes:
        entries: the usable clips of the chosen fold.
        excluded: listed clips of the chosen fold that can't be used.
        unlisted: clips of the source that no list names, as paths.
        folds: usable clips by fold, split and label, for every fold with lists; fold 0 if there are no folds.
        checks: those that only this layout allows.
        absent: listed clips of the chosen fold that are not in the source, as paths.
        listing: every line of the official lists by fold.
        fold: of the entries.
        clips: of the source, listed or not.
        sizes: other counts that may be published, e.g. rows of a sheet.
    """

    entries: tuple[Entry, ...]
    excluded: tuple[Excluded, ...]
    unlisted: tuple[str, ...]
    folds: Folds
    checks: tuple[Check, ...]
    absent: tuple[str, ...] = ()
    listing: Listing = field(default_factory=dict)
    fold: int = 0
    clips: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)


def severity_of(expect: Expect) -> Severity:
    """The severity of a failure that an incomplete set would explain."""
    return "error" if expect == "full" else "warning"


def require_official(dataset: str, fold: int) -> None:
    """Refuses a fold that the official lists don't have.

    Raises:
        DataError: it is not one of their numbers.
    """
    if fold not in OFFICIAL_FOLDS:
        raise DataError(
            f"{dataset}: ingest.fold is {fold}; its official lists have folds 1 to 5, set one of them"
        )


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def first_clips(names: Iterable[str]) -> tuple[str, ...]:
    """The first hundred names in order, for a check."""
    return tuple(sorted(names)[:100])


def counted(listing: Listing, keep: Callable[[Listed], bool] = lambda item: True) -> Folds:
    """Clips of a listing by fold, split and label, each in sorted order."""
    counts: dict[int, dict[str, dict[str, int]]] = {}
    for fold in sorted(listing):
        splits: dict[str, Counter[str]] = {}
        for item in listing[fold]:
            if keep(item):
                splits.setdefault(item.split, Counter())[item.label] += 1
        counts[fold] = {split: dict(sorted(splits[split].items())) for split in sorted(splits)}
    return counts


def gather(
    lock: Lock,
    listing: Listing,
    fold: int,
    place: Callable[[str], str],
    clips: Iterable[str],
    *,
    media: str = "video",
    captions: Mapping[str, tuple[str, str]] | None = None,
    completions: Mapping[str, str] | None = None,
    subtitles: Mapping[str, str] | None = None,
    split_from: str | None = None,
    excluded: Sequence[Excluded] = (),
    checks: Sequence[Check] = (),
    sizes: Mapping[str, int] | None = None,
) -> Reading:
    """Joins the official lists with what the source has.

    Args:
        lock: the pinned source.
        listing: the lines of each fold.
        fold: the chosen one.
        place: the path of a clip below the source, by its id.
        clips: paths of all clips of the source.
        media: video or frames.
        captions: by clip id, with their origin.
        completions: by clip id.
        subtitles: by clip id, where there are some.
        split_from: the rule that gave the split, if no file did.
        excluded: listed clips that can't be used; those missing from the source count as absent.
        checks: of the layout.
        sizes: counts that may be published.
    """
    captions, completions, subtitles = captions or {}, completions or {}, subtitles or {}
    entries, absent = [], []
    for item in listing[fold]:
        path = place(item.clip_id)
        if path not in lock:
            absent.append(path)
            continue
        caption, caption_from = captions.get(item.clip_id, (None, None))
        entries.append(
            Entry(
                item.clip_id,
                item.split,
                item.label,
                item.raw_label,
                path,
                media,
                caption,
                completions.get(item.clip_id),
                item.where,
                split_from or item.where,
                caption_from,
                subtitles.get(item.clip_id),
            )
        )
    places = {item.clip_id: place(item.clip_id) for item in excluded}
    absent += [path for path in places.values() if path not in lock]
    listed = {place(clip) for items in listing.values() for clip in {item.clip_id for item in items}}
    listed.update(places.values())
    present = {path for path in listed if path in lock}
    clips = set(clips)
    unlisted = tuple(sorted(clips - listed))
    return Reading(
        entries=tuple(entries),
        excluded=tuple(item for item in excluded if places[item.clip_id] in lock),
        unlisted=unlisted,
        folds=counted(listing, lambda item: place(item.clip_id) in present),
        checks=(*checks, _same_spelling(lookalikes(absent, unlisted))),
        absent=tuple(sorted(set(absent))),
        listing=listing,
        fold=fold,
        clips=len(clips),
        sizes=sizes or {},
    )


def _same_spelling(pairs: Mapping[str, str]) -> Check:
    """Fails for listed clips that the source has under a name that a spreadsheet or a converter changed."""
    shown = some(f"{listed} is listed, {there} is there" for listed, there in pairs.items())
    return Check(
        "same_spelling",
        not pairs,
        "error",
        "the names that the source has",
        f"{len(pairs)} listed clips have other leading zeros or another suffix than a file: {shown}"
        if pairs
        else "no listed clip has other leading zeros or another suffix than a file",
        first_clips(pairs),
        "write the names in the list as the files have them (spreadsheets drop zeros)" if pairs else "",
    )
