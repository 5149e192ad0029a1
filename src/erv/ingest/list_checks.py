"""Checks that a data set's lists don't contradict themselves, whichever clips are present."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized

from erv.ingest.published import Published
from erv.ingest.readers.reading import (
    OFFICIAL_FOLDS,
    Check,
    Expect,
    Listed,
    Listing,
    Severity,
    first_clips,
    severity_of,
    some,
)

_FETCH = "use the official files as they were delivered"
_REMEDY = "fix the table"  # written by the user, so there is no official copy to fetch
_LISTS = ("train", "test")


def structural(listing: Listing, published: Published | None, expect: Expect, fold: int) -> list[Check]:
    """Checks that the lists don't contradict themselves.

    Args:
        listing: the lines of every fold; fold 0 if the set has no folds.
        published: counts of the set, if any.
        expect: full or subset.
        fold: the chosen one; its lists must not be empty, even in a subset.
    """
    remedy = _REMEDY if published is None else _FETCH
    checks = [_listed_once(listing, remedy), _splits_apart(listing, remedy)]
    if 0 in listing:
        return checks
    tests = Counter(
        clip
        for items in listing.values()
        for clip in {item.clip_id for item in items if item.split == "test"}
    )
    # Published for the single sets and DFEW, implied by a table's fold column, unknown for the compound set.
    once = published is None or published.tested_once
    checks += [
        _one_label(listing, remedy),
        _one_test_fold(listing, tests, "error" if once else "warning", remedy),
    ]
    if published is not None:
        checks += [_filled(listing, fold, expect), _test_smaller(listing, severity_of(expect))]
        missing = [fold for fold in OFFICIAL_FOLDS if fold not in listing]
        checks.append(
            Check(
                "five_folds",
                not missing,
                severity_of(expect),
                "the lists of folds 1 to 5",
                f"no lists of fold {', '.join(map(str, missing))}"
                if missing
                else "the lists of folds 1 to 5",
                hint="complete the source; what is not there can't be checked" if missing else "",
            )
        )
        if not missing:
            strict = severity_of(expect) if published.tested_once else "warning"
            checks += [_some_test_fold(listing, tests, strict), _same_clips(listing, strict)]
    return checks


def _listed_once(listing: Listing, remedy: str) -> Check:
    twice: dict[str, str] = {}
    for items in listing.values():
        seen: dict[tuple[str, str], Listed] = {}
        for item in items:
            first = seen.setdefault((item.clip_id, item.split), item)
            if first is not item:
                twice.setdefault(item.clip_id, f"{item.clip_id} ({first.where} and {item.where})")
    return Check(
        "listed_once",
        not twice,
        "error",
        "each clip once in a list",
        f"{_clips_are(twice)} listed twice in the same split: {some(twice.values())}"
        if twice
        else "each clip once in a list",
        first_clips(twice),
        remedy if twice else "",
    )


def _splits_apart(listing: Listing, remedy: str) -> Check:
    both: dict[str, str] = {}
    for fold, items in listing.items():
        seen: dict[str, Listed] = {}
        for item in items:
            first = seen.setdefault(item.clip_id, item)
            if first.split != item.split:
                both.setdefault(
                    item.clip_id,
                    f"clip {item.clip_id!r} is in both {first.split} and {item.split}"
                    + (f" of fold {fold}" if fold else "")
                    + f" ({first.where}, {item.where})",
                )
    folds = "the lists may belong to different folds; " if remedy == _FETCH else ""
    return Check(
        "splits_apart",
        not both,
        "error",
        "no clip in two splits",
        f"{_clips_are(both)} in two splits: {some(both.values())}" if both else "no clip in two splits",
        first_clips(both),
        f"{folds}{remedy}" if both else "",
    )


def _one_label(listing: Listing, remedy: str) -> Check:
    seen: dict[str, Listed] = {}
    other: dict[str, str] = {}
    for items in listing.values():
        for item in items:
            first = seen.setdefault(item.clip_id, item)
            if first.label != item.label:
                other.setdefault(
                    item.clip_id,
                    f"{item.clip_id} ({first.label} in {first.where}, {item.label} in {item.where})",
                )
    return Check(
        "one_label",
        not other,
        "error",
        "the same label in every fold",
        f"{_clips_are(other)} labelled differently in different folds: {some(other.values())}"
        if other
        else "the same label in every fold",
        first_clips(other),
        remedy if other else "",
    )


def _one_test_fold(listing: Listing, tests: Counter[str], severity: Severity, remedy: str) -> Check:
    several = [clip for clip, count in tests.items() if count > 1]
    hint = ""
    if several:
        swapped, empty = _larger_tests(listing), _empty_lists(listing)
        lists: dict[frozenset[str], list[int]] = {}
        for fold, items in listing.items():
            lists.setdefault(frozenset(i.clip_id for i in items if i.split == "test"), []).append(fold)
        same = [folds for clips, folds in lists.items() if len(folds) > 1 and clips]
        if empty:
            hint = f"{'; '.join(empty)}: {remedy}"
        elif swapped:
            hint = f"train and test of fold {', '.join(map(str, swapped))} seem to be exchanged"
        elif same:
            hint = f"folds {' and '.join(map(str, same[0]))} have the same test list: one is a copy"
        else:
            hint = remedy
    return Check(
        "one_test_fold",
        not several,
        severity,
        "each clip in the test list of one fold",
        f"{_clips_are(several)} in the test lists of several folds: {some(several)}"
        if several
        else "no clip in two test lists",
        first_clips(several),
        hint,
    )


def _some_test_fold(listing: Listing, tests: Counter[str], severity: Severity) -> Check:
    never = {item.clip_id for items in listing.values() for item in items} - set(tests)
    return Check(
        "some_test_fold",
        not never,
        severity,
        "each clip in the test list of one fold",
        f"{_clips_are(never)} in no test list" + (f": {some(never)}" if never else ""),
        first_clips(never),
        _FETCH if never else "",
    )


def _same_clips(listing: Listing, severity: Severity) -> Check:
    clips = {fold: {item.clip_id for item in items} for fold, items in listing.items()}
    everything = set().union(*clips.values())
    lacking = {fold: everything - found for fold, found in clips.items() if found != everything}
    return Check(
        "same_clips",
        not lacking,
        severity,
        "the same clips in every fold",
        "; ".join(
            f"fold {fold} lacks {len(gone)} {'clip' if len(gone) == 1 else 'clips'}: {some(gone)}"
            for fold, gone in lacking.items()
        )
        or f"the same {len(everything)} clips in every fold",
        first_clips(set().union(*lacking.values())),
        _FETCH if lacking else "",
    )


def _filled(listing: Listing, fold: int, expect: Expect) -> Check:
    """Checks that neither list of an official fold is empty."""
    empty = _empty_lists(listing)
    chosen = _empty_lists({fold: listing[fold]})
    return Check(
        "lists_filled",
        not empty,
        "error" if chosen else severity_of(expect),
        "clips in the train and the test list of every fold",
        "; ".join(chosen or empty) or "clips in the train and the test list of every fold",
        hint=_FETCH if empty else "",
    )


def _test_smaller(listing: Listing, severity: Severity) -> Check:
    sizes = _sizes(listing)
    larger = _larger_tests(listing)
    return Check(
        "test_smaller_than_train",
        not larger,
        severity,
        "fewer clips in test than in train",
        "; ".join(
            f"fold {fold}: {sizes[fold]['test']} in test, {sizes[fold]['train']} in train" for fold in larger
        )
        or "fewer clips in test than in train",
        hint="the train and the test list seem to be exchanged" if larger else "",
    )


def _sizes(listing: Listing) -> dict[int, Counter[str]]:
    return {fold: Counter(item.split for item in items) for fold, items in listing.items()}


def _larger_tests(listing: Listing) -> list[int]:
    """Folds with more clips for testing than for training, if they have any for training."""
    return [fold for fold, size in _sizes(listing).items() if size["test"] > size["train"] > 0]


def _empty_lists(listing: Listing) -> list[str]:
    return [
        f"the {split} list of fold {fold} is empty"
        for fold, size in _sizes(listing).items()
        for split in _LISTS
        if not size[split]
    ]


def _clips_are(clips: Sized) -> str:
    return "1 clip is" if len(clips) == 1 else f"{len(clips)} clips are"
