"""Raters answer a study in a real browser, against the real server and its database."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Response

from erv.study.analysis.checks import Rules
from erv.study.analysis.report import Level, measure, write_report
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database
from erv.study.answers.table import write_answers
from erv.study.plan import Study, read_key, read_study
from erv.study.simulation import Model, simulate
from tests.support.browser import chromium, chromium_of, killed_chromium, visit
from tests.support.large_study import write_large_study
from tests.support.raters import (
    QUESTION,
    agree,
    answer,
    answers_in,
    choose,
    go_on,
    invited,
    item_on,
    prepared_study,
    progress,
    ready,
    see,
    watch,
)
from tests.support.websites import Program, program

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PANEL = {"completion_code": "C1A2B3", "return_link": "https://panel.example/done?cc=C1A2B3"}
COUNTS = {"practice": 1, "attention": 1, "gold": 1}
ITEMS = 13


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which everybody is asked ten pairs, practice, a check and a gold item."""
    return prepared_study(
        tmp_path_factory.mktemp("study") / "workspace",
        clips=10,
        kinds=["pair"],
        items_per_rater=10,
        overlap=30,  # so many raters come in this module
        panel=PANEL,
        **COUNTS,
    )


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return read_study(folder / "studies" / "people")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Program]:
    with program(("study", "serve", "people", "--port", "0"), folder / "serve.log", folder=folder) as server:
        yield server


def of_rater(folder: Path, before: int) -> list[dict]:
    return [dict(row) for row in answers_in(folder)[before:]]


def test_a_rater_does_ten_pairs_by_the_keyboard_alone(
    browser: Browser, server: Program, folder: Path, study: Study, tmp_path: Path
) -> None:
    before, (link,) = len(answers_in(folder)), invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        page = seen.page
        seen.require_accessible()
        page.keyboard.press("Tab")  # skips to the content
        page.keyboard.press("Tab")  # the other language
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/instructions")
        seen.require_accessible()
        page.locator("main a.button.primary").press("Enter")
        page.wait_for_selector(QUESTION)
        assert progress(page) == f"0 of {ITEMS} answered"
        for number in range(ITEMS):
            watch(page)
            page.keyboard.press("abcd"[number % 4])
            if number == 0:
                seen.require_accessible()
                seen.pictures(tmp_path, "emotion")
            page.keyboard.press("Enter")
            page.wait_for_selector("form[action='/answer']")
            ready(page)
            choose(page, "pair", "123"[number % 3])
            if number == 0:
                seen.require_accessible()
                seen.pictures(tmp_path, "pair")
            go_on(page)
        assert page.locator("form[action='/finish']").count() == 1
        seen.require_accessible()
        page.keyboard.press("Enter")  # pressed twice by accident: the study goes on
        page.get_by_role("button", name="Finish").press("Enter")
        page.wait_for_selector("#code")
        assert page.locator("#code").inner_text() == "C1A2B3"
        assert (
            page.get_by_role("link", name="Back to the panel").get_attribute("href") == PANEL["return_link"]
        )
        seen.require_accessible()
        page.reload()
        assert page.locator("#code").inner_text() == "C1A2B3"
        assert seen.troubles == []
        assert seen.foreign == []
    rows = of_rater(folder, before)
    assert {row["study"] for row in rows} == {study.sha256}
    (slot,) = {row["slot"] for row in rows}
    assert [row["item"] for row in rows] == list(study.assignments[slot])
    labels = [study.emotions["abcd".index("abcd"[number % 4])] for number in range(ITEMS)]
    for number, row in enumerate(rows):
        shown = [said.code for said in study.shown(slot, row["item"])]
        value = json.loads(row["value"])
        assert value == {"emotion": labels[number], "preferred": [*shown, "tie"][number % 3]}
        assert 0.5 < row["shown_ms"] / 1000 < 120


def test_a_reload_in_the_middle_goes_on_where_it_was(browser: Browser, server: Program, folder: Path) -> None:
    before, (link,) = len(answers_in(folder)), invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        page = seen.page
        agree(page)
        answer(page)
        item = item_on(page)
        watch(page)
        page.reload()
        page.wait_for_selector("[data-after-clip]:not(:disabled)")  # it was watched already
        ready(page)
        page.keyboard.press("b")
        page.keyboard.press("Enter")
        page.wait_for_selector("form[action='/answer']")
        page.reload()
        page.wait_for_selector("form[action='/answer']")
        ready(page)
        assert item_on(page) == item
        assert page.locator(".badge.accent").inner_text() == "You chose: disgust"
        assert progress(page) == f"1 of {ITEMS} answered"
        choose(page, "pair", "3")
        go_on(page)
        third = item_on(page)
    with visit(browser, server.address, link) as seen:  # another browser, the same invitation
        seen.page.locator("form button.primary").click()
        seen.page.wait_for_selector(QUESTION)
        assert item_on(seen.page) == third
        assert progress(seen.page) == f"2 of {ITEMS} answered"
    rows = of_rater(folder, before)
    assert len({row["rater"] for row in rows}) == 1
    assert [row["kind"] for row in rows] == ["pair", "pair"]


def test_an_answer_can_be_taken_back_but_not_the_emotion(
    browser: Browser, server: Program, folder: Path
) -> None:
    before, (link,) = len(answers_in(folder)), invited(folder, server.address)
    with visit(browser, server.address, link, width=390) as seen:
        page = seen.page
        agree(page)
        first = item_on(page)
        answer(page, "1")
        second = item_on(page)
        answer(page, "1")
        page.locator("#undo button").click()
        page.wait_for_selector("form[action='/answer']")
        assert item_on(page) == second
        ready(page)
        page.keyboard.press("u")
        page.wait_for_function("first => document.getElementById('clip').dataset.item === first", arg=first)
        page.locator("label.choice", has_text="Both equally").click()
        page.get_by_role("button", name="Next").click()
        page.wait_for_function(
            "second => document.getElementById('clip').dataset.item === second", arg=second
        )
        assert page.locator(".badge.accent").inner_text() == "You chose: anger"
        assert seen.troubles == []
    rows = of_rater(folder, before)
    assert [(row["item"], row["kind"]) for row in rows] == [
        (first, "pair"),
        (second, "pair"),
        (second, "undo"),
        (first, "undo"),
        (first, "pair"),
    ]
    assert json.loads(rows[-1]["value"])["preferred"] == "tie"


def test_two_raters_at_once(browser: Browser, server: Program, folder: Path, study: Study) -> None:
    before, links = len(answers_in(folder)), invited(folder, server.address, "--count", "2")
    with (
        visit(browser, server.address, links[0]) as one,
        visit(browser, server.address, links[1], language="de-DE") as other,
    ):
        assert other.page.locator("html").get_attribute("lang") == "de"
        agree(one.page)
        agree(other.page)
        for _ in range(3):
            answer(one.page, "1")
            answer(other.page, "2")
        assert progress(one.page) == f"3 of {ITEMS} answered"
        assert progress(other.page) == f"3 von {ITEMS} beantwortet"
        assert one.troubles == other.troubles == []
    rows = of_rater(folder, before)
    assert sorted(Counter(row["rater"] for row in rows).values()) == [3, 3]
    for rater in {row["rater"] for row in rows}:
        mine = [row for row in rows if row["rater"] == rater]
        (slot,) = {row["slot"] for row in mine}
        assert [row["item"] for row in mine] == list(study.assignments[slot][:3])


def test_the_server_is_killed_and_restarted(browser: Browser, folder: Path) -> None:
    arguments = ("study", "serve", "people", "--port")
    with program((*arguments, "0"), folder / "killed.log", folder=folder) as first:
        before, (link,) = len(answers_in(folder)), invited(folder, first.address)
        port = str(urlsplit(first.address).port)
        with visit(browser, first.address, link) as seen:
            page = seen.page
            agree(page)
            answer(page)
            see(page)
            choose(page, "pair", "2")
            item = item_on(page)
            first.kill()
            page.keyboard.press("Enter")
            page.wait_for_selector("#sending:not([hidden])")
            assert len(of_rater(folder, before)) == 1
            with program((*arguments, port), folder / "restarted.log", folder=folder) as again:
                assert again.address == first.address
                page.wait_for_function(
                    "item => document.getElementById('clip').dataset.item !== item", arg=item
                )
                assert progress(page) == f"2 of {ITEMS} answered"
                answer(page)
                rows = of_rater(folder, before)
                assert [row["item"] for row in rows][1] == item
                assert len(rows) == len({row["item"] for row in rows}) == 3
                assert again.end() == 0


def test_a_page_that_is_closed_while_it_sends_sends_when_it_is_opened_again(
    browser: Browser, folder: Path
) -> None:
    arguments = ("study", "serve", "people", "--port")
    with program((*arguments, "0"), folder / "closed.log", folder=folder) as first:
        before, (link,) = len(answers_in(folder)), invited(folder, first.address)
        port = str(urlsplit(first.address).port)
        with visit(browser, first.address, link) as seen:
            agree(seen.page)
            see(seen.page)
            choose(seen.page, "pair", "3")
            item = item_on(seen.page)
            first.kill()
            seen.page.keyboard.press("Enter")
            seen.page.wait_for_selector("#sending:not([hidden])")
            seen.page.close(run_before_unload=False)
            with program((*arguments, port), folder / "reopened.log", folder=folder):
                page = seen.context.new_page()
                page.goto(first.address)
                page.locator("#progress", has_text="1 of").wait_for()
                (row,) = of_rater(folder, before)
                assert row["item"] == item
                assert json.loads(row["value"])["preferred"] == "tie"


def test_raters_who_share_a_browser_answer_for_themselves(browser: Browser, folder: Path) -> None:
    """The server is gone under the first rater's answer; the second one enters; the first one comes back."""
    arguments = ("study", "serve", "people", "--port")
    with program((*arguments, "0"), folder / "shared.log", folder=folder) as first:
        before, links = len(answers_in(folder)), invited(folder, first.address, "--count", "2")
        port = str(urlsplit(first.address).port)
        with visit(browser, first.address, links[0]) as seen:
            agree(seen.page)
            see(seen.page)
            choose(seen.page, "pair", "3")
            item = item_on(seen.page)
            first.kill()
            seen.page.keyboard.press("Enter")
            seen.page.wait_for_selector("#sending:not([hidden])")
            with program((*arguments, port), folder / "shared_again.log", folder=folder):
                # The first one's page may send by now: stop it, as who leaves the room closes it.
                seen.page.close(run_before_unload=False)
                sent = len(of_rater(folder, before))
                page = seen.context.new_page()
                page.goto(first.address + links[1])
                agree(page)
                assert progress(page) == f"0 of {ITEMS} answered"
                answer(page, "1")
                mine = of_rater(folder, before)[sent:]
                assert [json.loads(row["value"])["preferred"] == "tie" for row in mine] == [False]
                page.goto(first.address + links[0])
                page.locator("form button.primary").click()
                page.wait_for_url("**/instructions" if not sent else "**/")
                page.goto(first.address)
                page.locator("#progress", has_text="1 of").wait_for()
                rows = of_rater(folder, before)
                assert len(rows) == len({row["rater"] for row in rows}) == 2
                (kept,) = [row for row in rows if row["rater"] != mine[0]["rater"]]
                assert (kept["item"], json.loads(kept["value"])["preferred"]) == (item, "tie")


def test_a_page_of_another_rater_in_the_same_browser_sends_nothing(
    browser: Browser, server: Program, folder: Path
) -> None:
    before, links = len(answers_in(folder)), invited(folder, server.address, "--count", "2")
    with visit(browser, server.address, links[0]) as seen:
        agree(seen.page)
        see(seen.page)
        item = item_on(seen.page)
        page = seen.context.new_page()
        page.goto(server.address + links[1])
        agree(page)
        choose(seen.page, "pair", "3")
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector("#refused:not([hidden])")
        assert "Somebody else has entered" in seen.page.locator("#refused").inner_text()
        assert of_rater(folder, before) == []
        page.goto(server.address + links[0])  # the first one's own link
        page.locator("form button.primary").click()
        page.goto(server.address)
        page.locator("#progress", has_text="1 of").wait_for()
        (row,) = of_rater(folder, before)
        assert (row["item"], json.loads(row["value"])["preferred"]) == (item, "tie")


@pytest.mark.parametrize(
    ("status", "body"), [(403, "<h1>Forbidden</h1>"), (408, "{}"), (502, ""), (404, '{"detail": "?"}')]
)
def test_what_a_proxy_says_costs_no_answer(
    browser: Browser, server: Program, folder: Path, status: int, body: str
) -> None:
    before, (link,) = len(answers_in(folder)), invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        agree(seen.page)
        see(seen.page)
        choose(seen.page, "pair", "3")
        item = item_on(seen.page)
        seen.page.route("**/answer", lambda route: route.fulfill(status=status, body=body))
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector("#sending:not([hidden])")
        assert of_rater(folder, before) == []
        seen.page.unroute("**/answer")
        seen.page.wait_for_function("item => document.getElementById('clip').dataset.item !== item", arg=item)
        assert [row["item"] for row in of_rater(folder, before)] == [item]


def test_a_visit_that_ran_out_costs_no_answer(browser: Browser, server: Program, folder: Path) -> None:
    before, (link,) = len(answers_in(folder)), invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        agree(seen.page)
        see(seen.page)
        choose(seen.page, "pair", "3")
        seen.context.clear_cookies()
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector("#refused:not([hidden])")
        assert "open the study from its link again" in seen.page.locator("#refused").inner_text()
        seen.page.goto(server.address + link)
        seen.page.locator("form button.primary").click()
        seen.page.wait_for_url("**/instructions")
        seen.page.goto(server.address)
        seen.page.locator("#progress", has_text="1 of").wait_for()
        assert len(of_rater(folder, before)) == 1


def test_a_browser_that_is_killed_while_it_sends_sends_when_it_is_opened_again(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    arguments = ("study", "serve", "people", "--port")
    with program((*arguments, "0"), folder / "killed_browser.log", folder=folder) as first:
        before, (link,) = len(answers_in(folder)), invited(folder, first.address)
        port = str(urlsplit(first.address).port)
        items: list[str | None] = []

        def until_it_sends(page: Page) -> None:
            agree(page)
            see(page)
            choose(page, "pair", "3")
            items.append(item_on(page))
            first.kill()
            page.keyboard.press("Enter")
            page.wait_for_selector("#sending:not([hidden])")

        killed_chromium(browser, tmp_path / "profile", first.address + link, until_it_sends)
        with (
            program((*arguments, port), folder / "killed_browser_again.log", folder=folder),
            chromium_of(browser, tmp_path / "profile") as context,
        ):
            page = context.new_page()
            page.goto(first.address + link)  # a browser that is killed may forget its cookies
            page.locator("form button.primary").click()
            page.wait_for_url("**/instructions")
            page.goto(first.address)
            page.locator("#progress", has_text="1 of").wait_for()
            (row,) = of_rater(folder, before)
            assert (row["item"], json.loads(row["value"])["preferred"]) == (items[0], "tie")


def test_nothing_that_is_sent_tells_who_wrote_what_or_what_others_said(
    browser: Browser, server: Program, folder: Path, study: Study
) -> None:
    key = read_key(study)
    others = {row["rater"] for row in answers_in(folder)}
    (link,) = invited(folder, server.address)
    heard: list[tuple[str, str]] = []

    def note(response: Response) -> None:
        if not response.url.endswith(tuple(study.media)):
            text = "" if response.status in (204, 303) else response.text()
            heard.append((response.url, json.dumps(response.headers) + text))

    with visit(browser, server.address, link) as seen:
        seen.page.on("response", note)
        agree(seen.page)
        for _ in range(4):
            item = study.item(str(item_on(seen.page)))
            sent = [text for _, text in heard]
            for said in item.explanations:
                assert not any(said.code in text for text in sent), "a code before the emotion is chosen"
            assert not any(said.text in seen.page.content() for said in item.explanations)
            see(seen.page)
            assert all(said.code in seen.page.content() for said in item.explanations)
            choose(seen.page, "pair")
            go_on(seen.page)
        cookies = seen.context.cookies()
    assert len(heard) > 12
    everything = "\n".join(text for _, text in heard)
    # Our own name is that of a policy, and HTML has an attribute `role`.
    pages = re.sub(r'erv\.svg|erv[-_]study\w*|role="(?:status|alert)"', "", everything)
    names = (*key.policies, "expected", "attention", "gold", "role", "mafw", "stratum")
    assert [name for name in names if re.search(rf"\b{name}\b", pages)] == []
    assert not any(clip.clip_id in everything for clip in key.items.values())
    assert not any(rater in everything for rater in others)
    (cookie,) = cookies
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")


def test_clips_and_files_of_others_are_not_served(browser: Browser, server: Program, folder: Path) -> None:
    (link,) = invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        agree(seen.page)
        own = str(seen.page.locator("#clip").get_attribute("src"))
        get = "async path => (await fetch(path)).status"
        assert seen.page.evaluate(get, own) in (200, 206)
        for path in ("/clips/aaaaaaaaaaaa", "/clips/..%2Fkey.json", "/key.json", "/studies/people/key.json"):
            assert seen.page.evaluate(get, path) == 404, path
    with visit(browser, server.address, own) as stranger:
        assert "not known here" in stranger.page.content()


def test_a_revoked_rater_is_turned_away(browser: Browser, server: Program, folder: Path) -> None:
    import contextlib

    from click.testing import CliRunner

    from erv.cli import command

    (link,) = invited(folder, server.address)
    with visit(browser, server.address, link) as seen:
        agree(seen.page)
        answer(seen.page)
        rater = answers_in(folder)[-1]["rater"]
        with contextlib.chdir(folder):
            assert CliRunner().invoke(command, ["study", "revoke", "people", str(rater)]).exit_code == 0
        seen.page.reload()
        assert "withdrawn" in seen.page.content()
        seen.require_accessible()


def test_ratings_in_german_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    folder = prepared_study(
        tmp_path / "workspace", clips=4, kinds=["rating"], items_per_rater=2, policies=["erv"], **COUNTS
    )
    with program(("study", "serve", "people", "--port", "0"), folder / "log", folder=folder) as server:
        (link,) = invited(folder, server.address)
        with visit(browser, server.address, link, width=390, language="de") as seen:
            page = seen.page
            agree(page)
            assert see(page) == "rating"
            page.locator("input[name=rating_emotion][value='4']").focus()
            page.keyboard.press("Space")  # on a choice it takes it, and doesn't play the clip
            assert page.locator("#clip").evaluate("clip => clip.paused")
            for name, value in (("own_answer", 5), ("true", 3)):
                page.locator(f"label.choice:has(input[name=rating_{name}][value='{value}'])").click()
            page.get_by_role("button", name="Weiter").click()  # one is open: the browser says so
            assert page.locator("input[name=rating_fluent]:invalid").count() == 5
            page.locator("label.choice:has(input[name=rating_fluent][value='2'])").click()
            seen.require_accessible()
            seen.pictures(tmp_path, "rating")
            page.get_by_role("button", name="Weiter").click()
            page.wait_for_selector("form[action='/emotion']")
            assert seen.troubles == []
        (row,) = answers_in(folder)
        assert json.loads(row["value"]) == {
            "emotion": "anger",
            "ratings": {"emotion": 4, "own_answer": 5, "true": 3, "fluent": 2},
        }


def test_the_report_can_be_read_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    study = read_study(write_large_study(tmp_path / "reported", clips=6, raters=6))
    base = Answerbase(f"sqlite:///{tmp_path / 'answers.db'}")
    simulate(base, study, read_key(study), Model({"sft": 0.0, "erv": 4.0}), raters=6, seed=1)
    write_answers(Database(base, study).log(), study)
    base.close()
    report = write_report(measure(study, {}, Level(0.95, 100, 1), Rules()), study)
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for row in page.locator(".line:not(.axis)").all():
        said, point = row.locator(".said").bounding_box(), row.locator(".point").bounding_box()
        assert said is not None
        assert said["height"] > 14  # text of the page's size, on one line
        assert point is None or said["y"] + said["height"] <= point["y"], "a value touches its point"
    table = page.locator(".scroll").filter(has_text="median seconds")
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")  # and so has a shadow
    assert "local" in table.evaluate("box => getComputedStyle(box).backgroundAttachment")
    context.close()
