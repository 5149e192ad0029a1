"""Checks of every data set against its source and against the published counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from erv.ingest.published import Published
from erv.ingest.readers.reading import (
    Check,
    Expect,
    Listing,
    Reading,
    Severity,
    first_clips,
    severity_of,
    some,
)

EXCHANGED = "exchanged"  # in the hint of a check that knows what happened
_FETCH = "use the official files as they were delivered"


def presence(reading: Reading, expect: Expect, max_excluded_share: float) -> list[Check]:
    """Checks that the source has the listed clips and that they can be used.

    Args:
        reading: as read.
        expect: full or subset.
        max_excluded_share: share of the listed clips that may be unusable.
    """
    present = len(reading.entries) + len(reading.excluded)
    total = present + len(
        reading.absent
    )  # most of a subset may be absent, so shares are of the clips present
    if not reading.entries and (reading.absent or not reading.excluded):
        lists = f"the lists of fold {reading.fold}" if reading.fold else "the source's lists"
        return [
            Check(
                "some_clips",
                False,
                "error",
                "at least one of them in the source",
                f"none of the {total} clips in {lists} is there" if total else f"{lists} name no clip",
                first_clips(reading.absent),
                (f"e.g. {reading.absent[0]!r}; " if reading.absent else "")
                + "put the clips beside the lists, under the names used there, and pin the source again",
            )
        ]
    reasons = Counter(item.reason for item in reading.excluded)
    share = len(reading.excluded) / present
    reasons_found = "; ".join(
        f"{count} x {reason} ({some({e.clip_id for e in reading.excluded if e.reason == reason})})"
        for reason, count in reasons.most_common(5)
    )
    too_many = share > max_excluded_share
    return [
        Check(
            "listed_but_absent",
            not reading.absent,
            severity_of(expect),
            "all of them there",
            f"{len(reading.absent)} of {total} listed clips are not in the source"
            + (f": {some(reading.absent)}" if reading.absent else ""),
            first_clips(reading.absent),
            "complete the source and pin it again with `erv data pin`, or set ingest.expect: subset"
            if reading.absent
            else "",
        ),
        Check(
            "excluded",
            not too_many,
            "error",
            f"at most {max_excluded_share:.1%} of them (ingest.max_excluded_share)",
            f"{len(reading.excluded)} of {present} listed clips ({share:.1%}) can't be used"
            + (f": {reasons_found}" if reasons_found else ""),
            first_clips({item.clip_id for item in reading.excluded}),
            "fix the source, or raise ingest.max_excluded_share to continue without them" if too_many else "",
        ),
    ]


def unlisted(reading: Reading, published: Published | None) -> Check:
    """Checks for clips that no list names; the official sets have a known number of them."""
    known = published.total - published.clips if published and published.total is not None else 0
    count = len(reading.unlisted)
    return Check(
        "unlisted",
        count <= known,
        "warning",
        f"at most {known}" if known else "none",
        f"{count} clips of the source are in no list"
        + (f": {some(reading.unlisted)}" if count > known else ""),
        first_clips(reading.unlisted),
        "they are not used; look whether a list or a fold is missing" if count > known else "",
    )


def against_published(reading: Reading, published: Published, expect: Expect) -> list[Check]:
    """Checks clips, classes, folds and sheets against the published counts; errors for a full set."""
    severity = severity_of(expect)
    labels = {item.clip_id: item.label for items in reading.listing.values() for item in items}
    classes = Counter(labels.values())
    checks = [
        _equal("published_clips", severity, {"listed clips": published.clips}, {"listed clips": len(labels)})
    ]
    if published.classes:
        checks.append(_equal("published_classes", severity, published.classes, classes))
    elif published.class_count is not None:
        checks.append(
            _equal(
                "published_classes", severity, {"classes": published.class_count}, {"classes": len(classes)}
            )
        )
    if published.folds:
        checks.append(_published_folds(reading.listing, published.folds, severity))
    if published.total is not None:
        name = "clips of the source"
        checks.append(_equal("published_total", severity, {name: published.total}, {name: reading.clips}))
    if published.sizes:
        checks.append(_equal("published_sheets", severity, published.sizes, reading.sizes))
    return checks


def _equal(name: str, severity: Severity, wanted: Mapping[str, int], found: Mapping[str, int]) -> Check:
    keys = [key for key in (*wanted, *sorted(set(found) - set(wanted))) if wanted.get(key) != found.get(key)]
    if not keys:
        return Check(name, True, severity, _text(wanted, wanted), _text(wanted, found))
    return Check(
        name,
        False,
        severity,
        f"the published {_text(keys, wanted)}",
        f"counts are {_text(keys, found)}",
        hint=f"{_FETCH}, or set ingest.expect: subset",
    )


def _text(keys: Mapping[str, int] | Sequence[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {counts.get(key, 'none')}" for key in keys)


def _published_folds(
    listing: Listing, published: Mapping[int, Mapping[str, int]], severity: Severity
) -> Check:
    found = {fold: dict(Counter(item.split for item in listing.get(fold, ()))) for fold in published}
    wrong = [fold for fold in published if found[fold] != published[fold]]
    hints = []
    for fold in wrong:
        if found[fold] == {"train": published[fold].get("test"), "test": published[fold].get("train")}:
            hints.append(f"train and test of fold {fold} are {EXCHANGED}")
        for other in published:
            if (
                other != fold
                and found[fold] == published[other]
                and not any(f"{other} and {fold}" in hint for hint in hints)
            ):
                hints.append(
                    f"fold {fold} has the counts of fold {other}: the folders of {fold} and {other}"
                    f" may be {EXCHANGED}"
                )
    return Check(
        "published_folds",
        not wrong,
        severity,
        "the published "
        + "; ".join(f"fold {fold}: {_text(published[fold], published[fold])}" for fold in wrong or published),
        "; ".join(f"fold {fold}: {_text(published[fold], found[fold])}" for fold in wrong or published),
        hint="; ".join(hints) or (f"{_FETCH}, or set ingest.expect: subset" if wrong else ""),
    )
