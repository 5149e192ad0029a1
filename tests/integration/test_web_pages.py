"""The style of our pages in a real browser: light and dark, wide and narrow, and what axe says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from erv.web.pages import STATIC, Pages, Static
from tests.support.browser import chromium, visit
from tests.support.paths import ROOT
from tests.support.websites import local_site, website

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TEMPLATE = ROOT / "tests" / "support" / "all_parts.html.j2"
HOSTILE = "<script>document.title = 'ran'</script><p onclick='x()' style='color: red'>text</p>"


async def all_parts(_: Request) -> Response:
    return HTMLResponse(Pages()._environment.from_string(TEMPLATE.read_text()).render())


async def hostile(_: Request) -> Response:
    return HTMLResponse(f"<!doctype html><title>still</title>{HOSTILE}")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    routes = [Route("/", all_parts), Route("/hostile", hostile), Mount(STATIC, Static())]
    with website(local_site(Starlette(routes=routes))) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_parts(browser: Browser, address: str, tmp_path: Path, dark: bool, width: int) -> None:
    with visit(browser, address, dark=dark, width=width) as seen:
        seen.require_accessible()
        written = seen.pictures(tmp_path, "parts")
        assert all(path.stat().st_size > 20_000 for path in written)
        assert seen.troubles == []
        assert seen.foreign == []


def test_focus_is_seen_and_the_first_stop_skips_the_frame(browser: Browser, address: str) -> None:
    with visit(browser, address) as seen:
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.className") == "skip"
        assert seen.page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "main"
        seen.page.keyboard.press("Tab")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert seen.page.evaluate(outline) == "solid"


def test_targets_are_large_enough_for_a_thumb(browser: Browser, address: str) -> None:
    script = "e => [e.textContent.trim(), e.getBoundingClientRect().height]"
    with visit(browser, address, width=390) as seen:
        for name, height in seen.page.locator("button, .choice, select, summary").evaluate_all(
            f"all => all.map({script})"
        ):
            assert height >= 44, f"{name} is {height} pixels high"


def test_an_error_page(browser: Browser, address: str) -> None:
    with visit(browser, address, "/nothing") as seen:
        assert "There is nothing here." in seen.page.inner_text("main")
        seen.require_accessible()


def test_markup_that_got_into_a_page_does_nothing(browser: Browser, address: str) -> None:
    with visit(browser, address, "/hostile") as seen:
        assert seen.page.title() == "still"
        assert seen.page.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(0, 0, 0)"
        assert any("Content Security Policy" in said for said in seen.troubles)
