"""More raters for a study that has begun.

Who is withdrawn before the end leaves a slot that the next rater takes. An extension is for what that can't
mend: raters who finished, but whose answers are not to count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import write_text
from erv.study.answers.state import State
from erv.study.answers.tables import UNDO
from erv.study.chance import Chance
from erv.study.contents import Extension, Seats, document
from erv.study.pinning import pin
from erv.study.plan import Key, Study, extension_files
from erv.study.seats import assign


def standing(
    study: Study, log: Sequence[Mapping[str, Any]], state: State, without: Collection[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """What has been answered, and what may still be.

    Args:
        study: the study.
        log: of `Database.log`.
        state: of the same database.
        without: raters whose answers are not to count.

    Returns:
        `answered` and `expected` of `lacking`: free slots are expected to be taken and finished, and raters
        who are under way to finish.
    """
    undone = {row["undoes"] for row in log if row["kind"] == UNDO}
    given = [
        (row["rater"], row["item"])
        for row in log
        if row["kind"] != UNDO and row["number"] not in undone and row["rater"] not in without
    ]
    done = set(given)
    expected = Counter(item for slot in state.free for item in study.assignments[slot])
    for rater in state.raters:
        if rater.slot is None or rater.finished or rater.withdrawn or rater.id in without:
            continue
        expected.update(item for item in study.assignments[rater.slot] if (rater.id, item) not in done)
    return Counter(item for _, item in given), expected


def lacking(study: Study, answered: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, int]:
    """How many more raters each main item needs.

    Args:
        study: the study.
        answered: item id -> how many answers there are.
        expected: item id -> how many raters have it in their slots and may still answer it.

    Returns:
        By item id, without those that need none.
    """
    wanted = {"pair": study.design.overlap, "rating": study.design.rating_overlap}
    missing = {
        item.id: wanted[item.kind] - answered.get(item.id, 0) - expected.get(item.id, 0)
        for item in study.items
        if item.role == "main"
    }
    return {item_id: count for item_id, count in missing.items() if count > 0}


def extend(study: Study, key: Key, missing: Mapping[str, int]) -> Path:
    """Writes and pins `extension-N.json` with slots for what is missing. The plan and its hash stay.

    Args:
        study: with the extensions that there are.
        key: of the study.
        missing: item id -> how many more raters, as `lacking`.

    Raises:
        DataError: nothing is missing, an earlier extension is not here, or DVC refuses.
    """
    if not missing:
        raise DataError(f"study {study.name}: no item lacks raters; there is nothing to extend")
    chance = Chance.of(key.seed, study.name, key.policies)
    seats: Seats = assign(
        study.items, missing, study.design.items_per_rater, chance, before=study.assignments
    )
    content = {"study": study.sha256, "seats": seats.model_dump(mode="json")}
    extension = Extension.model_validate_json(json.dumps(content))
    path = study.folder / f"extension-{len(extension_files(study.folder)) + 1}.json"
    write_text(document(extension), path)
    pin([path])
    return path
