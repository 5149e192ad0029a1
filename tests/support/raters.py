"""Raters at work in a real browser, and what the database then has of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from playwright.sync_api import Page

from erv.cli import command
from erv.settings import load_settings
from erv.study.answers.opened import opened
from erv.study.prepare import prepare
from tests.support.study_workspace import change_study, write_workspace

QUESTION = "form[data-main]"


def prepared_study(folder: Path, name: str = "people", **changes: Any) -> Path:
    """A workspace with a study; see `STUDY` of the workspace for what it asks."""
    write_workspace(folder)
    change_study(folder, **changes)
    with contextlib.chdir(folder):
        prepare(name, load_settings())
    return folder


def invited(folder: Path, address: str, *arguments: str, name: str = "people") -> list[str]:
    """Addresses of new invitations, without the server's own part."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(command, ["study", "invite", name, "--url", address, *arguments])
    assert result.exit_code == 0, result.output
    links = [line.split("  ", 1)[1] for line in result.output.splitlines() if "/enter?" in line]
    return [link.removeprefix(address) for link in links]


def answers_in(folder: Path, name: str = "people") -> list[Mapping[str, Any]]:
    """All answers and undos, in order."""
    with contextlib.chdir(folder), opened(name, folder) as (_, _, database):
        return database.log()


def ready(page: Page) -> None:
    """Waits until the page's script listens: keys that come earlier mean nothing."""
    page.wait_for_load_state("load")


def agree(page: Page) -> None:
    """From the consent to the first item."""
    page.locator("form button.primary").click()
    page.wait_for_url("**/instructions")
    page.locator("main a.button.primary").click()
    page.wait_for_selector(QUESTION)


def watch(page: Page) -> None:
    """Plays the clip to its end by the keyboard."""
    ready(page)
    page.keyboard.press("Space")
    page.wait_for_selector("[data-after-clip]:not(:disabled)")


def see(page: Page, key: str = "a") -> str:
    """Watches the clip and chooses an emotion by its key; returns the item's kind."""
    watch(page)
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("form[action='/answer']")
    ready(page)
    return "pair" if page.locator("input[name=preferred]").count() else "rating"


def choose(page: Page, kind: str, key: str = "1") -> None:
    """Answers by keys, without sending."""
    for pressed in key if kind == "pair" else "4532":
        page.keyboard.press(pressed)


def go_on(page: Page) -> None:
    """Sends the answer and waits for the next page."""
    before = item_on(page)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "before => { const clip = document.getElementById('clip');"
        " return document.readyState === 'complete' && (clip ? clip.dataset.item !== before : true); }",
        arg=before,
    )


def answer(page: Page, key: str = "1") -> str:
    """Does one item; returns its kind."""
    kind = see(page)
    choose(page, kind, key)
    go_on(page)
    return kind


def item_on(page: Page) -> str | None:
    """The id of the item that a page is about."""
    clip = page.locator("#clip")
    return clip.get_attribute("data-item") if clip.count() else None


def progress(page: Page) -> str:
    """Such as `3 of 13 answered`."""
    return page.locator("#progress").inner_text()
