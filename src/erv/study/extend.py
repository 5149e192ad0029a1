"""More raters for a study that has begun, where others dropped out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from erv.errors import DataError
from erv.files import write_text
from erv.study.chance import Chance
from erv.study.contents import Extension, Seats, document
from erv.study.pinning import pin
from erv.study.plan import Key, Study, extension_files
from erv.study.seats import assign


def lacking(study: Study, answered: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, int]:
    """How many more raters each main item needs.

    Args:
        study: the study.
        answered: item id -> how many answers there are.
        expected: item id -> how many raters have it in their seats and may still answer it.

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
    """Writes and pins `extension-N.json` with seats for what is missing. The plan and its hash stay.

    Args:
        study: with the extensions that there are.
        key: of the study.
        missing: item id -> how many more raters, as `lacking`.

    Raises:
        DataError: nothing is missing, or DVC refuses.
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
