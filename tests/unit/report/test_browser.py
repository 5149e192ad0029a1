"""The report as a reader sees it: in Chromium, from a file, with mouse, keys and links."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.report import pages
from erv.report.origin import Fact, with_origin
from tests.support.chromium import Tab, chromium
from tests.support.reports import direct_of, evidence_of, predictions_of, with_direct, write

pytestmark = pytest.mark.slow

WIDTHS = (1280, 400)
READY = "document.getElementById('browser')?.hidden === false"
COUNT = "document.getElementById('count').textContent"
OPEN = "document.getElementById('open-clip')?.textContent"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on one page."""
    folder = tmp_path_factory.mktemp("one page")  # with a space in its address
    write(folder, predictions_of(), evidence_of())
    return folder / "report.html"


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a policy that answers without explaining."""
    folder = tmp_path_factory.mktemp("direct")
    write(folder, {"erv": predictions_of()["erv"], "direct": direct_of()}, with_direct(evidence_of()))
    return folder / "report.html"


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose clips take several pages."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE_BYTES", 40_000)
        write(folder, predictions_of(), evidence_of())
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with chromium() as tab:
        yield tab


@pytest.fixture(params=WIDTHS)
def tab(request: pytest.FixtureRequest, browser: Tab) -> Iterator[Tab]:
    """A tab of a desk's or a phone's width; at the end its console must be empty."""
    browser.resize(request.param, 900)
    browser.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    browser.troubles.clear()
    browser.requests.clear()
    yield browser
    assert browser.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert browser.troubles == []
    assert all(url.startswith(("file:", "about:")) for url in browser.requests)


def show(tab: Tab, path: Path, fragment: str = "") -> None:
    tab.open(path.as_uri() + fragment)
    tab.wait(READY)


def choose(tab: Tab, name: str, value: str) -> Any:
    """Sets a filter as a user does, and returns what the count says."""
    tab.evaluate(
        f"(() => {{ const field = document.getElementById('filters').elements['{name}'];"
        f" field.value = '{value}'; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )
    return tab.evaluate(COUNT)


def later(tab: Tab, script: str) -> None:
    """Runs what leads to another page, which must not end the call that runs it."""
    tab.evaluate(f"setTimeout(() => {{ {script} }}, 50)")


def focused(tab: Tab) -> Any:
    """The element that has the focus: its id, its name, or the key of its clip."""
    return tab.evaluate(
        "(node => node.clip?.key ?? (node.id || node.name || node.tagName))(document.activeElement)"
    )


def test_it_opens_from_a_file_without_a_network(tab: Tab, report: Path) -> None:
    show(tab, report)
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    assert tab.evaluate("scrollY") == 0  # the headline comes first
    assert tab.evaluate("document.querySelectorAll('#clip .says').length") == 3
    assert tab.evaluate("document.querySelector('#clip img.strip').naturalWidth") > 0
    outside = "box.width && (box.left < -1 || box.right > innerWidth + 1)"
    assert not tab.evaluate(
        "[...document.querySelectorAll('#browser *')].map(node => node.getBoundingClientRect())"
        f".some(box => {outside})"
    )


def test_the_copy_that_names_its_origin_is_no_wider(tab: Tab, report: Path, tmp_path: Path) -> None:
    """At both widths; the fixture looks at the page's own width at the end."""
    run = "http://mlflow.a-server-with-a-long-name.example:5000/#/experiments/123456789012345678/runs"
    told = [
        Fact("made", "2026-11-29 12:00 UTC by somebody@a-machine-with-a-long-name.example"),
        Fact("commit", f"{'3f2a9c1b' * 5}, with changes beside it"),
        Fact("version", "emotion-policy 12 (champion, challenger)"),
        Fact("gate", "fail: the difference of inconsistency against the champion is 0.0123 to 0.0456"),
        Fact("report", f"{run}/{'0a1b2c3d' * 4}/artifacts/report/report.html", f"{run}/{'0a1b2c3d' * 4}"),
    ]
    copy = tmp_path / "report.html"
    copy.write_text(with_origin(report.read_text(), told))
    show(tab, copy)
    assert tab.evaluate("document.querySelectorAll('section table a[href^=http]').length") >= 1
    assert "Where this report comes from" in tab.evaluate("document.body.textContent")
    assert not tab.evaluate(
        "[...document.querySelectorAll('section[aria-label^=Where]')]"
        ".some(one => one.getBoundingClientRect().right > innerWidth + 1)"
    )


def test_what_a_model_wrote_never_runs(tab: Tab, report: Path) -> None:
    title = "Do the explanations agree with the answers?"
    show(tab, report, "#clip=mafw/00002")
    assert tab.evaluate(OPEN) == "MAFW 00002: fear"
    assert "</script><script>" in tab.evaluate("document.getElementById('clip').textContent")
    assert tab.evaluate("document.querySelectorAll('#clip script, #clip [onerror]').length") == 0
    assert tab.evaluate("document.title") == title
    # And if it did become markup, the page's policy would stop it.
    tab.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"document.title=1\">')"
    )
    tab.evaluate("new Promise(done => setTimeout(done, 200))")
    assert tab.evaluate("document.title") == title
    assert any("Content Security Policy" in text for text in tab.troubles)
    tab.troubles.clear()


def test_filters_find_what_they_say(tab: Tab, report: Path) -> None:
    show(tab, report)
    rows = predictions_of()
    wrong = sum(row["predicted"] != row["label"] for row in rows["mine"])
    choose(tab, "policy", "mine")
    assert choose(tab, "answer", "wrong") == f"{wrong} of 12 clips"
    right_only = sum(
        row["predicted"] == row["label"] and row["judged"] != row["predicted"] for row in rows["mine"]
    )
    choose(tab, "answer", "right")
    assert choose(tab, "explanation", "incoherent") == f"{right_only} of 12 clips"
    tab.evaluate("document.getElementById('clear').click()")
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    agree = sum(len({v["emotion"] for v in row["verdicts"]}) == 1 for row in rows["sft"])
    assert choose(tab, "judges", "agree") == f"{agree} of 12 clips"
    choose(tab, "judges", "")
    differ = sum(len({rows[policy][clip]["predicted"] for policy in rows}) > 1 for clip in range(12))
    assert choose(tab, "change", "differ") == f"{differ} of 12 clips"
    choose(tab, "change", "")
    assert choose(tab, "emotion", "fear") == "4 of 12 clips"
    choose(tab, "emotion", "")
    assert choose(tab, "find", "onerror") == "1 of 12 clips"
    both = [
        clip
        for clip in range(12)
        if any("burning" in rows[policy][clip]["completion"] for policy in rows)
        and any("fear" in (rows[policy][clip]["predicted"], rows[policy][clip]["label"]) for policy in rows)
    ]
    assert choose(tab, "find", "fear burning") == f"{len(both)} of 12 clips"
    assert choose(tab, "find", "nothing has this") == "0 of 12 clips"
    choose(tab, "find", "")
    choose(tab, "order", "changed")
    changed = tab.evaluate("[...document.querySelectorAll('#list a')].map(node => node.clip.changed)")
    assert changed == sorted(changed, reverse=True)
    assert changed[0] > changed[-1]


def test_a_policy_without_explanations_is_in_no_filter_about_them(tab: Tab, direct: Path) -> None:
    show(tab, direct)
    choose(tab, "policy", "direct")
    assert choose(tab, "answer", "") == "12 of 12 clips"
    for name, values in (("explanation", ("coherent", "incoherent")), ("judges", ("agree", "disagree"))):
        assert [choose(tab, name, value) for value in values] == ["0 of 12 clips"] * 2
        choose(tab, name, "")
    marks = "[...document.querySelectorAll('#list .badge')].map(node => node.textContent)"
    assert any("≠" in mark for mark in tab.evaluate(f"{marks}.filter((_, i) => i % 2 === 0)"))
    assert set(tab.evaluate(f"{marks}.filter((_, i) => i % 2 === 1)")) == {"✓", "✗"}
    last = tab.evaluate("[...document.querySelectorAll('#clip .says')].at(-1).textContent")
    assert last.endswith("It answers without explaining, so judges have nothing to read.")
    tab.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")


def test_sentences_take_the_colour_of_the_chosen_reader(tab: Tab, report: Path) -> None:
    show(tab, report, "#clip=mafw/00001")
    read = "[...document.querySelectorAll('#clip mark sup')].slice(0, 2).map(node => node.textContent)"
    hue = "getComputedStyle(document.querySelectorAll('#clip mark')[1]).backgroundColor"
    assert tab.evaluate(read) == ["neutral", "anger"]
    before = tab.evaluate(hue)
    tab.evaluate("document.querySelectorAll('input[name=reader]')[1].click()")
    assert tab.evaluate(read) == ["none", "happiness"]
    assert tab.evaluate(hue) != before
    chips = tab.evaluate(
        "[...document.querySelectorAll('#clip .says')[1].querySelectorAll('.chip')]"
        ".map(node => node.textContent)"
    )
    assert "lexical: anger ✗" in chips
    assert "embedding: disgust ✓" in chips


def test_everything_works_by_keyboard(tab: Tab, report: Path) -> None:
    show(tab, report)
    order = tab.evaluate("[...document.querySelectorAll('#list a')].map(node => node.clip.key)")
    tab.press("/")
    assert focused(tab) == "find"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.evaluate(outline) == "solid"
    tab.write("burning")
    assert tab.evaluate(COUNT) == "11 of 12 clips"
    tab.press("Escape")
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    assert focused(tab) == order[0]
    assert tab.evaluate(outline) == "solid"
    tab.press("ArrowDown")
    assert focused(tab) == order[1]
    assert order[1].partition("/")[2] in tab.evaluate(OPEN)
    tab.press("End")
    assert focused(tab) == order[-1]
    tab.press("Home")
    tab.press("ArrowRight")
    assert order[1].partition("/")[2] in tab.evaluate(OPEN)
    tab.press("ArrowLeft")
    assert order[0].partition("/")[2] in tab.evaluate(OPEN)
    choose(tab, "answer", "wrong")
    tab.evaluate("document.querySelector('#list a').focus()")
    tab.press("Escape")
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    # A slash in the search is a slash; arrows in a field belong to the field.
    tab.press("/")
    tab.press("/")
    tab.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.value") == "/"
    labels = "node.ariaLabel || node.labels?.length || node.textContent.trim() || node.alt !== undefined"
    assert not tab.evaluate(
        "[...document.querySelectorAll('a, button, input, select, audio, svg, img')]"
        f".filter(node => !({labels})).map(node => node.outerHTML.slice(0, 80))"
    )


def test_a_link_opens_its_clip_with_its_filters(tab: Tab, report: Path) -> None:
    show(tab, report, "#clip=mafw/00004&policy=mine&answer=wrong")
    assert tab.evaluate(OPEN) == "MAFW 00004: disgust"
    assert tab.evaluate("document.getElementById('filters').elements.answer.value") == "wrong"
    assert tab.evaluate("scrollY") > 0
    tab.evaluate("document.querySelectorAll('#list a')[1].click()")
    assert "answer=wrong" in tab.evaluate("location.hash")
    tab.evaluate("location.hash = '#clip=mafw/00007'")
    tab.wait(f"{OPEN}.startsWith('MAFW 00007')")
    assert tab.evaluate(COUNT) == "12 of 12 clips"  # the link names no filter
    assert "bored (not a label) ✗" in tab.evaluate("document.getElementById('clip').textContent")
    tab.evaluate("location.hash = '#clip=mafw/none'")
    tab.wait("!document.getElementById('unknown').hidden")
    said = tab.evaluate("document.getElementById('unknown').textContent")
    assert said == "There is no clip mafw/none in this report."


def test_a_filter_that_does_not_exist_leaves_the_address(tab: Tab, report: Path) -> None:
    show(tab, report, "#answer=bogus&policy=mine")
    assert tab.evaluate("location.hash") == "#policy=mine"


def test_sound_plays_and_its_waveform_follows(tab: Tab, report: Path) -> None:
    show(tab, report, "#clip=mafw/00001")
    length = tab.evaluate(
        "new Promise((done, fail) => { const player = document.querySelector('#clip audio');"
        " player.onloadedmetadata = () => done(player.duration); player.onerror = () => fail(player.error);"
        " player.load(); player.preload = 'auto'; })"
    )
    assert length == pytest.approx(0.5, abs=0.01)
    tab.evaluate(
        "new Promise(done => { const player = document.querySelector('#clip audio');"
        " player.addEventListener('timeupdate', done); player.currentTime = 0.25; })"
    )
    played = tab.evaluate("document.querySelector('.played').getAttribute('width')")
    assert float(played) == pytest.approx(60, abs=3)
    show(tab, report, "#clip=mafw/00003")
    assert "The sound is silent." in tab.evaluate("document.getElementById('clip').textContent")
    show(tab, report, "#clip=mafw/00004")
    assert "The clip has no sound." in tab.evaluate("document.getElementById('clip').textContent")


def test_links_and_keys_lead_from_page_to_page(tab: Tab, larger: Path) -> None:
    show(tab, larger)
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    keys = tab.evaluate("[...document.querySelectorAll('#list a')].map(node => node.clip.key)")
    first, last = (key.partition("/")[2] for key in (keys[0], keys[-1]))
    show(tab, larger, f"#clip={keys[-1]}&order=")
    tab.wait(f"location.pathname.includes('/clips/page-') && {READY} && {OPEN}?.includes('{last}')")
    assert tab.evaluate(COUNT) == "12 of 12 clips"
    tab.evaluate("document.querySelector('#list a').click()")
    tab.wait(f"location.pathname.endsWith('/report.html') && {READY} && {OPEN}?.includes('{first}')")
    show(tab, larger, f"#clip={keys[0]}")
    for key in keys[1:]:
        tab.press("ArrowRight")
        tab.wait(f"{READY} && {OPEN}?.includes('{key.partition('/')[2]}')")


def test_back_returns_to_the_page_that_was_left(tab: Tab, larger: Path) -> None:
    show(tab, larger)
    order = "[...document.querySelectorAll('#list a')].map(node => [node.clip.key, node.clip.page])"
    listed = tab.evaluate(order)
    last = [key for key, page in listed if page == 0][-1]
    first = next(key for key, page in listed if page == 1)
    steps = (
        lambda: tab.press("ArrowRight"),
        lambda: later(tab, "document.getElementById('next').click()"),
        lambda: later(tab, f"location.hash = '#clip={first}'"),
    )
    for step in steps:
        show(tab, larger, f"#clip={last}")
        step()
        tab.wait(
            f"location.pathname.includes('/clips/page-2') && {READY} && {OPEN}?.includes('{_id(first)}')"
        )
        later(tab, "history.back()")
        tab.wait(f"location.pathname.endsWith('/report.html') && {READY} && {OPEN}?.includes('{_id(last)}')")
        tab.evaluate("new Promise(done => setTimeout(done, 200))")
        assert tab.evaluate("location.pathname.endsWith('/report.html')")
        assert tab.evaluate("location.hash") == f"#clip={last}"


def _id(key: str) -> str:
    return key.partition("/")[2]
