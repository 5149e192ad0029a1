"""Which failed gates a version of the champion's bundle is excused."""

from __future__ import annotations

import pytest

from erv.register.succession import no_worse
from erv.register.verdict import FAIL, SERVING_CODE, WITHDRAWN, Verdict


@pytest.mark.parametrize("metric", [SERVING_CODE, WITHDRAWN])
@pytest.mark.parametrize("champion_was_gated", [True, False])
def test_neither_uncommitted_code_nor_withdrawn_clips(metric: str, champion_was_gated: bool) -> None:
    failed = Verdict(metric, outcome=FAIL, reason="so it is")
    assert not no_worse([failed], [failed] if champion_was_gated else None)


def test_what_the_champion_failed_too() -> None:
    failed = Verdict("WAR", outcome=FAIL, reason="too low")
    assert no_worse([failed], [failed])
    assert not no_worse([failed], [])
