"""The page of figures per setting as a reader uses it: in Chromium, from a file, with what axe says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from erv.results.page import write
from tests.support.browser import chromium, visit
from tests.support.result_rows import gathered, rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    remark = "MLflow can't be asked (refused), so how the runs ran is unknown"
    html, *_ = write(gathered(None, remark), tmp_path_factory.mktemp("page"))
    return html.as_uri()


def shown(page: Page, column: int) -> list[str]:
    """The texts of a column in the rows that are shown, in their order."""
    script = f"rows => rows.map(row => row.cells[{column}].innerText)"
    texts: list[str] = page.eval_on_selector_all(".results tbody tr:not([hidden])", script)
    return texts


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible_and_fits(
    browser: Browser, address: str, tmp_path: Path, dark: bool, width: int
) -> None:
    with visit(browser, address, "", dark=dark, width=width) as seen:
        seen.require_accessible()
        seen.page.locator(".results input").first.check()
        seen.page.locator(".results input").nth(3).check()
        seen.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        seen.require_accessible()
        assert all(path.stat().st_size > 20_000 for path in seen.pictures(tmp_path, "by_setting"))
        assert seen.page.title() == "Figures per setting"
        assert seen.troubles == []
        assert seen.foreign == []


def test_on_a_phone_the_results_come_before_what_is_the_same_in_all(browser: Browser, address: str) -> None:
    with visit(browser, address, "", width=390) as seen:
        height = seen.page.evaluate("window.innerHeight")
        heading = seen.page.get_by_role("heading", name="Results", exact=True).bounding_box()
        assert heading is not None
        assert heading["y"] < height
        first = seen.page.locator(".results tbody tr").first.bounding_box()
        assert first is not None
        assert first["y"] < height, "filters stood before the table"
        dataset = seen.page.locator("#by-dataset")
        assert not dataset.is_visible()
        seen.page.get_by_text("Filters", exact=True).click()
        assert dataset.is_visible()
        apart = seen.page.locator("#apart")
        assert not apart.is_visible()
        seen.page.locator(".results input").first.check()
        assert apart.is_visible()
        frames = seen.page.get_by_role("rowheader", name="Frames per clip").first
        assert not frames.is_visible()
        seen.page.get_by_text("The same in all rows").click()
        assert frames.is_visible()
    with visit(browser, address, "") as seen:
        assert seen.page.get_by_role("rowheader", name="Frames per clip").first.is_visible()
        assert seen.page.locator("#by-dataset").is_visible()
        assert seen.page.locator("#apart").is_visible()


def test_filters_and_headings_order_the_rows(browser: Browser, address: str) -> None:
    with visit(browser, address, "") as seen:
        everything = len(shown(seen.page, 1))
        seen.page.select_option("#by-published", "own")
        assert len(shown(seen.page, 1)) == len(rows())
        assert f"{len(rows())} of {everything} rows" in seen.page.inner_text("#shown")
        seen.page.get_by_role("button", name="WAR", exact=True).click()
        figures = [float(text.split()[0]) for text in shown(seen.page, 4)]
        assert figures == sorted(figures, reverse=True)
        assert seen.page.locator("th[aria-sort=descending]").inner_text().startswith("WAR")
        seen.page.get_by_role("button", name="EPC", exact=True).click()
        seen.page.get_by_role("button", name="EPC", exact=True).click()
        assert shown(seen.page, 7)[-1] == "–"  # an unknown figure is neither the least nor the greatest
        seen.page.select_option("#by-dataset", "mafw")
        seen.page.select_option("#by-fold", "2")
        seen.page.select_option("#by-policy", "sft")
        assert [text.split()[0] for text in shown(seen.page, 4)] == ["52.0"]


def test_two_rows_are_compared_in_words(browser: Browser, address: str) -> None:
    with visit(browser, address, "") as seen:
        apart = seen.page.locator("#apart")
        first = seen.page.locator("tr[data-policy=sft][data-fold='1'] input")
        second = seen.page.locator("tr[data-policy=sft][data-fold='2'] input")
        first.check()
        assert "Choose another row" in apart.inner_text()
        second.check()
        assert "They differ in one setting:\nFold: 1 → 2" in apart.inner_text().replace("\n\n", "\n")
        seen.page.locator("tr[data-policy=erv][data-fold='1'][data-dataset=mafw] input").first.check()
        assert not first.is_checked()
        text = apart.inner_text()
        assert "They differ in 2 settings, so the difference of their figures is not that of one" in text
        assert "Rewards" not in text.partition("Method")[0]
        seen.page.locator("tr[data-dataset=dfew][data-published=own] input").check()
        text = apart.inner_text()
        assert "different data sets" in text
        assert "can't be told, as one of them doesn't say: Frame source" in text


def test_of_two_that_state_nothing_it_is_said_what_cannot_be_told(browser: Browser, address: str) -> None:
    with visit(browser, address, "") as seen:
        for name in ("HiCMAE", "MAE-DFER"):
            seen.page.locator(f"tr[data-policy='{name}'][data-dataset=dfew] input").check()
        text = seen.page.locator("#apart").inner_text()
        assert "Nothing is known of both settings, so in what they differ can't be told." in text
        assert "can't be told, as neither of them says: Frame source, Fold, Split, " in text
        assert text.endswith("other parameters.")
