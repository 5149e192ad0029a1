"""The page of a lineage as a reader sees it: in Chromium, from a file, at two widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.lineage.page import page
from tests.support.chromium import chromium
from tests.unit.lineage.test_answers import tree

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "lines"), [(1280, True), (400, False)])
def test_the_page_at_two_widths(tmp_path: Path, width: int, lines: bool) -> None:
    path = tmp_path / "graph.html"
    path.write_text(page("m/1", tree()))
    with chromium() as tab:
        tab.resize(width, 900)
        tab.open(path.as_uri())
        assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert tab.evaluate("document.querySelectorAll('.box').length") == 3
        assert tab.evaluate("document.querySelectorAll('#edges path').length") == 3
        assert tab.evaluate("getComputedStyle(document.getElementById('edges')).display !== 'none'") is lines
        assert tab.troubles == []
        assert all(url.startswith(("file:", "about:")) for url in tab.requests)
