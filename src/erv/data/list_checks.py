"""Whether a data set's lists contradict themselves, whatever part of the clips one has."""

from __future__ import annotations

from collections import Counter

from erv.data.published import Published
from erv.data.reading import (
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


def structural(listing: Listing, published: Published | None, expect: Expect) -> list[Check]:
    """Whether the lists contradict themselves.

    Args:
        listing: the lines of every fold; fold 0 where the set has none.
        published: figures of the set, if any.
        expect: full or subset.
    """
    checks = [_listed_once(listing), _splits_apart(listing)]
    if 0 in listing:
        return checks
    tests = Counter(
        clip
        for items in listing.values()
        for clip in {item.clip_id for item in items if item.split == "test"}
    )
    # Known of the single sets and of DFEW, meant by a table's column of folds; not said of the compound set.
    once = published is None or published.tested_once
    checks += [_one_label(listing), _one_test_fold(listing, tests, "error" if once else "warning")]
    if published is not None:
        checks.append(_test_smaller(listing, severity_of(expect)))
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


def _listed_once(listing: Listing) -> Check:
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
        f"{len(twice)} clips are listed twice in the same split: {some(twice.values())}"
        if twice
        else "each clip once in a list",
        first_clips(twice),
        _FETCH if twice else "",
    )


def _splits_apart(listing: Listing) -> Check:
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
    return Check(
        "splits_apart",
        not both,
        "error",
        "no clip in two splits",
        f"{len(both)} clips are in two splits: {some(both.values())}" if both else "no clip in two splits",
        first_clips(both),
        f"the lists may belong to different folds; {_FETCH}" if both else "",
    )


def _one_label(listing: Listing) -> Check:
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
        f"{len(other)} clips change their label between folds: {some(other.values())}"
        if other
        else "the same label in every fold",
        first_clips(other),
        _FETCH if other else "",
    )


def _one_test_fold(listing: Listing, tests: Counter[str], severity: Severity) -> Check:
    several = [clip for clip, count in tests.items() if count > 1]
    hint = ""
    if several:
        sizes = {fold: Counter(item.split for item in items) for fold, items in listing.items()}
        swapped = [fold for fold in listing if sizes[fold]["test"] > sizes[fold]["train"]]
        lists: dict[frozenset[str], list[int]] = {}
        for fold, items in listing.items():
            lists.setdefault(frozenset(i.clip_id for i in items if i.split == "test"), []).append(fold)
        same = [folds for clips, folds in lists.items() if len(folds) > 1 and clips]
        if swapped:
            hint = f"train and test of fold {', '.join(map(str, swapped))} seem to be exchanged"
        elif same:
            hint = f"folds {' and '.join(map(str, same[0]))} have the same test list: one is a copy"
        else:
            hint = _FETCH
    return Check(
        "one_test_fold",
        not several,
        severity,
        "each clip in the test list of one fold",
        f"{len(several)} clips are in the test lists of several folds: {some(several)}"
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
        f"{len(never)} clips are in no test list" + (f": {some(never)}" if never else ""),
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
        "; ".join(f"fold {fold} lacks {len(gone)} clips: {some(gone)}" for fold, gone in lacking.items())
        or f"the same {len(everything)} clips in every fold",
        first_clips(set().union(*lacking.values())),
        _FETCH if lacking else "",
    )


def _test_smaller(listing: Listing, severity: Severity) -> Check:
    sizes = {fold: Counter(item.split for item in items) for fold, items in listing.items()}
    larger = [fold for fold in listing if sizes[fold]["test"] > sizes[fold]["train"]]
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
