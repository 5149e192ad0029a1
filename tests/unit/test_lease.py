"""What a lease says of who holds it."""

from __future__ import annotations

import json

import pytest

from erv.storage.lease import _holder_of


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"host": "box", "process": 71, "who": "Ann Lee (ann@box)"}, "process 71 of Ann Lee (ann@box)"),
        ({"host": "box", "process": 71, "who": ""}, "process 71 on box"),
        ({"host": "box", "process": 71}, "process 71 on box"),
        ({"process": 71}, "an unknown process"),
        ([], "an unknown process"),
    ],
)
def test_who_holds_a_lease(record: object, said: str) -> None:
    assert _holder_of(json.dumps(record).encode()) == said
