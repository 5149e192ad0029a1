"""Who is asked what: a balanced design that can be extended.

Every slot is asked about a clip once at most among the main items, as its own emotion is asked before any
explanation is shown. Clip by clip, the items of a clip go to the slots that have the fewest items so far.
Loads then never differ by more than one, whatever the order of the clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from erv.study.chance import Chance
from erv.study.contents import Item, Seats


def assign(
    items: Sequence[Item],
    wanted: Mapping[str, int],
    per_rater: int,
    chance: Chance,
    *,
    before: Mapping[str, Sequence[str]] | None = None,
) -> Seats:
    """Fills slots.

    Args:
        items: all of the study.
        wanted: main item id -> how many more raters are to be asked about it.
        per_rater: main items of a slot, at most.
        chance: of the study.
        before: the slots that there are; new ones are numbered after them.

    Returns:
        New slots only: practice first, then main items with checks and gold items among them, in an order of
        the slot's own. Which explanation of a pair is shown first changes from one slot to the next.
    """
    before = before or {}
    by_id = {item.id: item for item in items}
    demand: dict[str, list[str]] = {}
    for item_id in sorted(wanted):
        demand.setdefault(by_id[item_id].clip_id, []).extend([item_id] * wanted[item_id])
    total = sum(len(ids) for ids in demand.values())
    count = max([math.ceil(total / per_rater), *(len(ids) for ids in demand.values())])
    first = len(before) + 1
    slots = [f"r{number:03d}" for number in range(first, first + count)]
    loads: dict[str, list[str]] = {slot: [] for slot in slots}
    for clip in chance.shuffled(demand, f"clips/{first}"):
        asked = demand[clip]
        mixed = chance.shuffled(slots, f"slots/{first}/{clip}")
        fewest = sorted(mixed, key=lambda slot: len(loads[slot]))[: len(asked)]
        # An item's raters are spread over the chosen slots at random, too.
        for slot, item_id in zip(chance.shuffled(fewest, f"seats/{first}/{clip}"), asked, strict=True):
            loads[slot].append(item_id)
    practice = [item.id for item in items if item.role == "practice"]
    among = [item.id for item in items if item.role in ("attention", "gold")]
    order = {
        slot: (
            *chance.shuffled(practice, f"practice/{slot}"),
            *chance.shuffled([*ids, *among], f"order/{slot}"),
        )
        for slot, ids in loads.items()
    }
    return Seats(assignments=order, swapped=_swapped(order, by_id, before, chance))


def _swapped(
    order: Mapping[str, Sequence[str]],
    items: Mapping[str, Item],
    before: Mapping[str, Sequence[str]],
    chance: Chance,
) -> dict[str, tuple[str, ...]]:
    """Of each slot, the pairs that are shown the other way round: every second slot of a pair."""
    times: dict[str, int] = {}
    for ids in before.values():
        for item_id in ids:
            times[item_id] = times.get(item_id, 0) + 1
    swapped: dict[str, tuple[str, ...]] = {}
    for slot, ids in order.items():
        turned = []
        for item_id in ids:
            if items[item_id].kind == "pair" and (times.get(item_id, 0) % 2 == 1) != chance.coin(
                f"side/{item_id}"
            ):
                turned.append(item_id)
            times[item_id] = times.get(item_id, 0) + 1
        swapped[slot] = tuple(turned)
    return swapped
