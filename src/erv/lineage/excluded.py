"""Why clips were left out, from the record that the stage `leakage` writes beside the list of them.

The list has ids alone: training depends on it, and must not run again because a twin moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def left_out(record: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """The clips that nothing is trained or tuned on: data set and clip id -> which clip each equals, in what.

    Args:
        record: content of `data/leakage.json`.
    """
    if record["action"] != "exclude":
        return {}
    found = {}
    for item in record["found"]:
        dataset, _, clip_id = item["clip"].partition("/")
        twin = f"{item['twin']} ({item['twin_use']}, {item['twin_uri']})"
        found[dataset, clip_id] = f"{item['alike']} as {twin}"
    return found
