"""Members of a panel come with the address that Prolific fills in, answer in browsers, and go back to it.

Their answers are kept in a real PostgreSQL server, which fails in the middle.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page

from erv.cli import command
from erv.study.plan import read_study
from tests.support.browser import chromium, visit
from tests.support.postgres import Postgres, postgres
from tests.support.raters import QUESTION, agree, answer, answers_in, invited, prepared_study
from tests.support.websites import Program, program

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PANEL = {"completion_code": "C1A2B3", "return_link": "https://panel.example/done?cc=C1A2B3"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    with postgres() as started:
        monkeypatch.setenv("ERV_STUDY_DATABASE", started.url)
        yield started


@pytest.fixture
def folder(tmp_path: Path, database: Postgres) -> Path:
    return prepared_study(
        tmp_path / "workspace",
        clips=2,
        kinds=["pair"],
        items_per_rater=2,
        overlap=2,
        practice=0,
        attention=1,
        gold=0,
        panel=PANEL,
    )


@pytest.fixture
def server(folder: Path) -> Iterator[Program]:
    with program(("study", "serve", "people", "--port", "0"), folder / "serve.log", folder=folder) as server:
        yield server


def filled_in(link: str, member: str) -> str:
    """The address as Prolific opens it for a member."""
    for name, value in (("PROLIFIC_PID", member), ("STUDY_ID", "s1"), ("SESSION_ID", "x1")):
        link = link.replace(f"{{{{%{name}%}}}}", value)
    assert "{" not in link
    return link


def ends_at_the_panel(page: Page) -> None:
    """Finishes, and follows the button back to the panel, which has a page for this test."""
    page.route("https://panel.example/**", lambda route: route.fulfill(body="<h1>Thanks from the panel</h1>"))
    page.get_by_role("button", name="Finish").click()
    page.wait_for_selector("#code")
    assert page.locator("#code").inner_text() == "C1A2B3"
    page.get_by_role("link", name="Back to the panel").click()
    page.get_by_text("Thanks from the panel").wait_for()
    assert page.url == PANEL["return_link"]


def test_members_of_a_panel_answer_and_go_back(
    browser: Browser, server: Program, folder: Path, database: Postgres
) -> None:
    (link,) = invited(folder, server.address, "--panel", "prolific")
    with visit(browser, server.address, filled_in(link, "5f00aa")) as seen:
        agree(seen.page)
        for _ in range(3):
            answer(seen.page, "1")
        ends_at_the_panel(seen.page)
    with visit(browser, server.address, filled_in(link, "5f00bb"), width=390) as seen:
        agree(seen.page)
        answer(seen.page, "2")
        database.restart()  # as after a power failure
        answer(seen.page, "2")
    # The same member in another browser goes on; the panel's id says who it is.
    with visit(browser, server.address, filled_in(link, "5f00bb")) as seen:
        seen.page.locator("form button.primary").click()
        seen.page.wait_for_selector(QUESTION)
        assert seen.page.locator("#progress").inner_text() == "2 of 3 answered"
        answer(seen.page, "2")
        ends_at_the_panel(seen.page)
    rows = answers_in(folder)
    study = read_study(folder / "studies" / "people")
    assert {row["rater"]: 3 for row in rows} == dict.fromkeys({row["rater"] for row in rows}, 3)
    assert len(rows) == len({(row["rater"], row["item"]) for row in rows}) == 6
    assert [row["item"] for row in rows] == [
        *study.assignments[rows[0]["slot"]],
        *study.assignments[rows[3]["slot"]],
    ]
    with contextlib.chdir(folder):
        said = CliRunner().invoke(command, ["study", "status", "people", "--json"]).output
    raters = json.loads(said)["raters"]
    assert [(one["participant"], one["finished"]) for one in raters] == [("5f00aa", True), ("5f00bb", True)]
    assert not (folder / ".erv/studies/answers.db").exists()
