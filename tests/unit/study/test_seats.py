"""Who is asked what: balanced, never about a clip twice, and extendable."""

from __future__ import annotations

from collections import Counter

import pytest

from erv.study.chance import Chance
from erv.study.contents import Item, Seats
from erv.study.seats import assign

CHANCE = Chance("1" * 64)


def items_of(clips: int, per_clip: int) -> list[Item]:
    made = []
    for clip in range(clips):
        for number in range(per_clip):
            codes = (f"AA{clip:02d}{number}", f"BB{clip:02d}{number}")
            said = [{"code": code, "text": "text", "answer": ""} for code in codes]
            made.append(
                Item.model_validate(
                    {
                        "id": f"item{clip:02d}{number}",
                        "kind": "pair",
                        "role": "main" if clip else "practice",
                        "clip_id": f"clip{clip:02d}",
                        "explanations": tuple(said),
                    },
                    strict=False,
                )
            )
    return made


def mains(seats: Seats, slot: str) -> list[str]:
    return [item for item in seats.assignments[slot] if not item.startswith("item00")]


@pytest.mark.parametrize(
    ("clips", "per_clip", "overlap", "per_rater"), [(12, 3, 4, 6), (31, 1, 5, 7), (4, 6, 2, 20)]
)
def test_it_is_balanced(clips: int, per_clip: int, overlap: int, per_rater: int) -> None:
    items = items_of(clips, per_clip)
    wanted = {item.id: overlap for item in items if item.role == "main"}
    seats = assign(items, wanted, per_rater, CHANCE)
    asked = Counter(item for slot in seats.assignments for item in mains(seats, slot))
    assert asked == wanted
    loads = [len(mains(seats, slot)) for slot in seats.assignments]
    assert max(loads) - min(loads) <= 1
    assert max(loads) <= per_rater
    for slot in seats.assignments:
        about = [item[:6] for item in mains(seats, slot)]
        assert len(set(about)) == len(about), "a rater is asked about a clip twice"
        assert {item[:6] for item in seats.assignments[slot][:per_clip]} == {"item00"}, "practice comes first"


def test_each_side_is_first_for_half_of_the_raters_of_a_pair() -> None:
    items = items_of(20, 2)
    seats = assign(items, {item.id: 5 for item in items if item.role == "main"}, 8, CHANCE)
    turned = Counter(item for ids in seats.swapped.values() for item in ids)
    assert {turned[item.id] for item in items if item.role == "main"} == {2, 3}


def test_orders_differ_between_raters_and_not_between_runs() -> None:
    items = items_of(6, 1)
    wanted = {item.id: 4 for item in items if item.role == "main"}
    seats = assign(items, wanted, 5, CHANCE)
    assert len(set(seats.assignments.values())) == len(seats.assignments) == 4
    assert assign(items[::-1], wanted, 5, CHANCE) == seats
    assert assign(items, wanted, 5, Chance("2" * 64)) != seats


def test_an_extension_fills_what_is_missing_with_new_seats() -> None:
    items = items_of(10, 2)
    wanted = {item.id: 4 for item in items if item.role == "main"}
    before = assign(items, wanted, 6, CHANCE)
    missing = {"item010": 2, "item011": 1, "item050": 3}
    more = assign(items, missing, 6, CHANCE, before=before.assignments)
    assert Counter(item for slot in more.assignments for item in mains(more, slot)) == missing
    assert min(more.assignments) == f"r{len(before.assignments) + 1:03d}"
    turned = Counter(
        item for seats in (before, more) for ids in seats.swapped.values() for item in ids if item in missing
    )
    assert turned["item010"] == 3
