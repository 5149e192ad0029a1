"""`erv app` in a real browser: clips good and bad, cancelled, compared blind, judged, recorded, live."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, expect

from erv.commands.app import command
from erv.sample.clips import encode
from tests.support.browser import WIDTHS, Visit, chromium, visit
from tests.support.talking_bundle import SAID, write_face_clips, write_talking_bundle
from tests.support.tiny_bundle import write_clip
from tests.support.websites import program

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LONG_MS = 300_000  # a machine that is busy with other tests loads a version slowly
# Notes what the explanation was while it was written, and how many of its sentences had ended.
WATCH = """() => {
  window.written = [];
  window.finished = [];
  new MutationObserver(() => {
    const place = document.querySelector(".explanation.writing");
    if (!place) return;
    const copy = place.cloneNode(true);
    copy.querySelectorAll(".label").forEach((label) => label.remove());
    const text = copy.textContent, ended = copy.querySelectorAll(".sentence").length;
    if (text && window.written.at(-1) !== text) window.written.push(text);
    if (window.finished.at(-1) !== ended) window.finished.push(ended);
  }).observe(document.getElementById("answers"), { childList: true, subtree: true });
}"""
# Asks and takes it back at once; says what had the focus meanwhile.
CANCEL = """async (by) => {
  document.getElementById("go").click();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const focused = document.activeElement.id;
  if (by === "click") document.getElementById("cancel").click();
  else document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  return focused;
}"""
# Keeps what the server says to the page's scripts.
LISTEN = """() => {
  const real = window.fetch;
  window.told = [];
  window.fetch = async (...asked) => {
    const answer = await real(...asked);
    window.told.push(answer.clone().text());
    return answer;
  };
}"""
# Makes the browser ask for camera and microphone until `allow()`, and keeps what it opened.
ASK_FIRST = """() => {
  const devices = navigator.mediaDevices, real = devices.getUserMedia.bind(devices), waiting = [];
  window.opened = [];
  window.allow = () => waiting.splice(0).forEach((go) => go());
  window.asked = 0;
  devices.getUserMedia = async (...what) => {
    window.asked += 1;
    await new Promise((resolve) => waiting.push(resolve));
    const stream = await real(...what);
    window.opened.push(stream);
    return stream;
  };
}"""
LEFT_ON = "window.opened.flatMap((one) => one.getTracks()).filter((one) => one.readyState === 'live').length"
# Keeps requests to an address until `send()`, and counts all requests by their address.
HOLD = """(held) => {
  const real = window.fetch, waiting = [];
  window.counts = {};
  window.send = () => { held = null; waiting.splice(0).forEach((go) => go()); };
  window.fetch = async (address, ...more) => {
    const path = String(address).split("?")[0];
    window.counts[path] = (window.counts[path] ?? 0) + 1;
    if (path === held && window.counts[path] === 1) await new Promise((resolve) => waiting.push(resolve));
    return real(address, ...more);
  };
}"""
SUBMIT_TWICE = "for (const _ of [1, 2]) document.getElementById('ask').requestSubmit()"
ANGER = " ".join(text for text, _ in SAID["anger"])


@dataclass(frozen=True)
class Place:
    """A server, and where it is: `folder` is its workspace, `clips` what it serves."""

    address: str
    folder: Path
    clips: Path

    @property
    def journal(self) -> list[dict]:
        path = self.folder / ".erv/app/feedback.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.folder / ".erv/app").glob("clips/*"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "clips").mkdir()
    (folder / "temporary").mkdir()
    clips = write_face_clips(folder / "clips")
    write_talking_bundle(folder / "first", clips, frames=8, size=64)
    shutil.copytree(folder / "first", folder / "second")
    shutil.copy(clips["anger"], folder / "clips/two  spaces.mp4")
    write_clip(folder / "clips/no sound.mp4", sound=False)
    write_clip(folder / "clips/silent.mp4", loudness=0.0)
    (folder / "clips/broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(6 * 62)]
    sound = random.integers(-9000, 9000, 62 * 16000).astype(np.int16)
    (folder / "clips/long.mp4").write_bytes(encode(frames, sound, fps=6))
    (folder / "workspace").mkdir()
    arguments = ["app", "--port", "0", "--device", "cpu", "--max-mb", "8"]
    arguments += ["--bundle", str(folder / "first"), "--bundle", str(folder / "second")]
    more = {"ERV_SERVE_ROOT": str(folder / "clips"), "TMPDIR": str(folder / "temporary")}
    with program(arguments, folder / "log", folder=folder / "workspace", more=more) as served:
        address = served.address
        loaded = httpx.post(f"{address}/open", json={"version": "1"}, timeout=LONG_MS / 1000)
        assert loaded.status_code == 200, loaded.text
        yield Place(address, folder / "workspace", folder / "clips")
        assert served.end() == 0
    assert not list((folder / "temporary").iterdir()), "something of the clips is left"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def seen(browser: Browser, place: Place) -> Iterator[Visit]:
    with visit(browser, place.address) as seen:
        yield seen
        assert seen.troubles == []
        assert seen.foreign == []


def state(page: Page, text: str, number: int = 0) -> None:
    expect(page.locator(".panel .state").nth(number)).to_have_text(text, timeout=LONG_MS)


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Waits; Playwright's `wait_for_function` evaluates text in the page, which its policy forbids."""
    for _ in range(200):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("waited in vain")


def test_a_good_clip(seen: Visit, place: Place, tmp_path: Path) -> None:
    page, before = seen.page, place.journal
    seen.pictures(tmp_path, "start")
    seen.require_accessible()
    page.set_input_files("#file", place.clips / "anger.mp4")
    expect(page.locator("#clip")).to_be_visible()
    page.evaluate(WATCH)
    page.click("#go")
    state(page, "Done")
    texts, finished = page.evaluate("[window.written, window.finished]")
    # A busy machine shows several words at once, never all.
    assert len(texts) > 3
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert ANGER.startswith(texts[-1])
    assert finished == sorted(finished)
    assert any(0 < count < 4 for count in finished), "a sentence ends while others are being written"
    expect(page.locator(".answer")).to_have_text("anger")
    expect(page.locator(".agreement")).to_have_text("3 of 4 sentences agree")
    kinds = page.locator(".sentence").evaluate_all("all => all.map(one => one.className)")
    assert kinds == [
        "sentence agrees",
        "sentence agrees",
        "sentence disagrees",
        "sentence agrees",
    ]
    facts = page.inner_text(".facts")
    assert "First words" in facts
    assert "tokens a second" in facts
    assert page.locator(".frames img").count() == 8
    assert page.locator(".frames img").evaluate_all("all => all.every(one => one.naturalWidth === 64)")
    assert page.inner_text(".scores li >> nth=0").startswith("anger")
    expect(page.locator("#news")).to_contain_text("anger, 3 of 4 sentences agree")
    seen.pictures(tmp_path, "answered")
    seen.require_accessible()
    assert place.journal == before
    assert place.kept == []


def test_the_time_line_moves_the_clip(seen: Visit, place: Place) -> None:
    page = seen.page
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.click("#go")
    state(page, "Done")
    page.locator(".time").focus()
    page.keyboard.press("End")
    at_the_end = "document.getElementById('clip').currentTime"
    assert page.evaluate(at_the_end) == pytest.approx(
        page.evaluate("document.getElementById('clip').duration"), abs=0.1
    )
    page.keyboard.press("Home")
    assert page.evaluate(at_the_end) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ("broken.mp4", "Container can't be read"),
        ("no sound.mp4", "No sound track"),
        ("silent.mp4", "Not_silent: found"),
        ("long.mp4", "Length_plausible: found 62, expected 0.5 to 60 s"),
    ],
)
def test_a_clip_that_can_not_be_answered(seen: Visit, place: Place, clip: str, said: str) -> None:
    page = seen.page
    page.set_input_files("#file", place.clips / clip)
    page.click("#go")
    state(page, "Not answered")
    expect(page.locator(".trouble")).to_contain_text(said)
    assert str(place.clips.parent) not in page.inner_text(".panel .trouble"), "a path of the machine"
    expect(page.locator("#go")).to_be_enabled()
    seen.require_accessible()
    seen.troubles[:] = [text for text in seen.troubles if "ERR_FILE_NOT_FOUND" not in text]


def test_what_is_missing_or_too_large_is_said_before_it_is_sent(
    seen: Visit, place: Place, tmp_path: Path
) -> None:
    page = seen.page
    page.click("#go")
    expect(page.locator("#fault")).to_have_text("Choose a clip first.")
    (tmp_path / "large.mp4").write_bytes(bytes(9 << 20))
    page.set_input_files("#file", tmp_path / "large.mp4")
    page.click("#go")
    expect(page.locator("#fault")).to_have_text("The clip has 9 MiB, at most 8 MiB are taken; cut it.")
    assert page.locator(".panel").count() == 0


def test_a_cancelled_clip(seen: Visit, place: Place) -> None:
    page = seen.page
    for how in ("click", "key"):
        page.set_input_files("#file", place.clips / "anger.mp4")
        assert page.evaluate(CANCEL, how) == "cancel"
        state(page, "Cancelled")
        expect(page.locator("#cancel")).to_be_hidden()
    page.click("#go")
    state(page, "Done")


def test_two_versions_side_by_side_and_blind(
    browser: Browser, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with visit(browser, place.address) as seen:
        page, before = seen.page, len(place.journal)
        page.check("input[value=served]")
        page.select_option("#served", "happiness.mp4")
        page.check("#compare")
        page.check("#blind")
        page.check("#keep")
        page.evaluate(LISTEN)
        page.click("#go")
        expect(page.locator("#judge")).to_be_visible(timeout=LONG_MS)
        assert page.locator(".panel .who").all_inner_texts() == ["A", "B"]
        told = page.evaluate("Promise.all(window.told)")
        assert len(told) == 3
        assert "happiness" in told[1]
        assert not any(name in text for text in told for name in ("/first", "/second", '"first"', '"second"'))
        first, second = (
            [json.loads(line)["kind"] for line in text.splitlines()[:2]]
            for text in told
            if "answering" in text
        )
        assert first == second, "one side alone was told that its version is being loaded"
        seen.require_accessible()
        assert seen.troubles == []
        page.route("**/feedback", lambda route: route.fulfill(status=503, json={}))
        page.click(".prefer >> nth=1")
        expect(page.locator("#judged")).to_have_text("Not saved; choose again.")
        assert page.locator(".panel .who").all_inner_texts() == ["A", "B"]
        page.unroute("**/feedback")
        seen.troubles.clear()
        page.click(".prefer >> nth=1")
        expect(page.locator("#judged")).to_contain_text("B is")
        names = page.locator(".panel .who").all_inner_texts()
        assert sorted(name.rpartition(": ")[2] for name in names) == ["first", "second"]
        seen.pictures(tmp_path, "compared")
        seen.require_accessible()
        assert seen.troubles == []
        lines = place.journal[before:]
        page.click(".thumb[value=up] >> nth=1")  # to be the better one is no approval
        expect(page.locator(".said >> nth=1")).to_have_text("Saved, with the clip.")
        until(page, lambda: len(place.journal) == before + 3)
    assert len(lines) == 2
    preferred = {line["version"]["name"]: line["said"]["preferred"] for line in lines}
    assert preferred[names[1].rpartition(": ")[2]] is True
    assert preferred[names[0].rpartition(": ")[2]] is False
    assert {line["said"]["beside"] for line in lines} == {line["answer"]["id"] for line in lines}
    assert place.kept == [lines[0]["clip"]["kept"]]
    monkeypatch.chdir(place.folder)
    done = CliRunner().invoke(command, ["export", str(tmp_path / "round-2")])
    assert done.output.splitlines()[-1].startswith("wrote 1 clip with its explanation to ")
    assert "happiness" in (tmp_path / "round-2/EMER.csv").read_text()


def test_on_a_phone_the_question_comes_after_both_explanations_and_names_them(
    seen: Visit, place: Place
) -> None:
    """It stood before them, and asked for "The first one" of what was called A and B."""
    page = seen.page
    page.set_viewport_size({"width": 390, "height": WIDTHS[390]})
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.check("#compare")
    page.click("#go")
    expect(page.locator("#judge")).to_be_visible(timeout=LONG_MS)
    assert page.locator(".panel .who").all_inner_texts() == ["A: first", "B: second"]
    assert page.locator(".prefer").all_inner_texts() == ["A", "B", "No difference"]
    first, second, question = (
        page.locator(selector).bounding_box() for selector in (".panel >> nth=0", ".panel >> nth=1", "#judge")
    )
    assert first
    assert second
    assert question
    assert first["y"] + first["height"] <= second["y"]
    assert second["y"] + second["height"] <= question["y"]


def test_a_version_is_not_compared_with_itself(seen: Visit, place: Place) -> None:
    page = seen.page
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.check("#compare")
    page.select_option("#other", "1")
    page.click("#go")
    expect(page.locator("#fault")).to_have_text("Choose two different versions.")
    assert page.locator(".panel").count() == 0
    refused = httpx.post(f"{place.address}/pair", json={"versions": ["1", "1"]}, trust_env=False)
    assert refused.status_code == 400
    assert "two different ones" in refused.json()["error"]["message"]


def test_the_data_sets_of_the_version_can_be_chosen(seen: Visit, place: Place) -> None:
    """Any text could be typed; what the version didn't know was ignored."""
    page = seen.page
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.click("#more summary")
    page.locator("#dataset option >> nth=1").wait_for(state="attached", timeout=LONG_MS)
    assert page.locator("#dataset option").all_inner_texts() == ["Not said", "mafw"]
    page.select_option("#dataset", "mafw")
    page.check("#compare")  # which asks again, of both
    expect(page.locator("#dataset-hint")).to_contain_text("Its emotions are scored", timeout=LONG_MS)
    expect(page.locator("#dataset")).to_have_value("mafw")
    page.uncheck("#compare")
    seen.require_accessible()
    page.click("#go")
    state(page, "Done")


def test_asked_twice_in_a_row_a_pair_is_asked_once(seen: Visit, place: Place) -> None:
    page = seen.page
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.check("#compare")
    page.check("#blind")
    page.evaluate(HOLD, "/pair")
    page.evaluate(SUBMIT_TWICE)
    expect(page.locator("#cancel")).to_be_visible()
    page.evaluate("window.send()")
    expect(page.locator("#judge")).to_be_visible(timeout=LONG_MS)
    assert page.evaluate("window.counts") == {"/pair": 1, "/explain": 2}


def test_a_pair_that_is_cancelled_before_it_is_asked(seen: Visit, place: Place) -> None:
    page = seen.page
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.check("#compare")
    page.check("#blind")
    page.evaluate(HOLD, "/pair")
    page.click("#go")
    page.click("#cancel")
    page.evaluate("window.send()")
    expect(page.locator("#go")).to_be_enabled()
    assert page.evaluate("window.counts") == {"/pair": 1}, "it was taken back before it was asked"


def test_the_last_thumb_counts_also_if_the_first_is_slow(seen: Visit, place: Place) -> None:
    page, before = seen.page, len(place.journal)
    page.set_input_files("#file", place.clips / "anger.mp4")
    page.click("#go")
    state(page, "Done")
    page.evaluate(HOLD, "/feedback")
    page.click(".thumb[value=up]")
    page.click(".thumb[value=down]")
    page.wait_for_timeout(500)
    page.evaluate("window.send()")
    until(page, lambda: len(place.journal) == before + 2)
    assert [line["said"]["thumb"] for line in place.journal[before:]] == ["up", "down"]


def test_a_clip_whose_name_has_two_spaces_can_be_picked(seen: Visit) -> None:
    page = seen.page
    page.check("input[value=served]")
    page.select_option("#served", value="two  spaces.mp4")
    expect(page.locator("#clip")).to_have_js_property("readyState", 4, timeout=LONG_MS)
    page.click("#go")
    state(page, "Done")


def test_a_clip_that_can_not_be_kept(seen: Visit, place: Place) -> None:
    page, clips = seen.page, place.folder / ".erv/app/clips"
    aside = clips.with_name("aside")
    if clips.exists():
        clips.rename(aside)
    clips.write_text("no folder")
    try:
        page.set_input_files("#file", place.clips / "anger.mp4")
        page.check("#keep")
        page.click("#go")
        state(page, "Done")
        expect(page.locator(".trouble")).to_contain_text("The clip could not be kept")
        expect(page.locator(".answer")).to_have_text("anger")
        page.click(".thumb[value=up]")
        expect(page.locator(".said")).to_have_text("Saved. The clip was not kept.")
    finally:
        clips.unlink()
        if aside.exists():
            aside.rename(clips)


def test_thumbs_and_a_correction_by_keyboard_alone(seen: Visit, place: Place) -> None:
    page, before = seen.page, len(place.journal)
    page.keyboard.press("Tab")  # the link to the content
    page.keyboard.press("Enter")

    def go_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"{selector} can't be reached by keyboard")

    go_to("input[name=source]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    go_to("#served")
    page.keyboard.type("anger")
    go_to("#go")
    page.keyboard.press("Enter")
    state(page, "Done")
    expect(page.locator("#go")).to_be_focused()
    go_to(".thumb[value=down]")
    page.keyboard.press("Space")
    expect(page.locator(".said")).to_have_text("Saved. The clip was not kept.")
    go_to(".opinion summary")
    page.keyboard.press("Enter")
    go_to(".emotion")
    page.keyboard.type("disgust")
    go_to(".better")
    page.keyboard.type("He looks away and wrinkles his nose.")
    go_to(".opinion .primary")
    page.keyboard.press("Enter")
    expect(page.locator(".said")).to_have_text("Saved. The clip was not kept.")
    until(page, lambda: len(place.journal) == before + 2)
    said = place.journal[-1]["said"]
    assert said == {
        "thumb": "down",
        "emotion": "disgust",
        "explanation": "He looks away and wrinkles his nose.",
        "preferred": None,
        "beside": None,
    }


def test_a_recording(seen: Visit) -> None:
    page = seen.page
    page.check("input[value=record]")
    page.click("#record")
    page.wait_for_timeout(2500)
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Record again")
    page.click("#go")
    state(page, "Done")
    assert page.locator(".frames img").count() == 8


def test_a_recording_opens_one_camera_and_closes_it(seen: Visit) -> None:
    page = seen.page
    page.check("input[value=record]")
    page.evaluate(ASK_FIRST)
    page.evaluate("for (const _ of [1, 2]) document.getElementById('record').click()")
    page.wait_for_timeout(300)
    assert page.evaluate("window.asked") == 1
    page.evaluate("window.allow()")
    expect(page.locator("#record")).to_have_text("Stop recording")
    page.wait_for_timeout(1000)
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Record again")
    assert page.evaluate(LEFT_ON) == 0
    page.click("#record")
    page.check("input[value=file]")  # before the browser allows it
    page.evaluate("window.allow()")
    until(page, lambda: page.evaluate("window.opened.length === 2"))
    until(page, lambda: page.evaluate(f"{LEFT_ON} === 0"))


def test_a_recording_that_is_left_closes_the_camera(seen: Visit, place: Place) -> None:
    """It stayed on, without a button that stops it, and no clip could be explained."""
    page = seen.page
    page.check("input[value=record]")
    page.evaluate(ASK_FIRST)
    page.click("#record")
    page.evaluate("window.allow()")
    expect(page.locator("#record")).to_have_text("Stop recording")
    page.check("input[value=file]")
    until(page, lambda: page.evaluate(f"{LEFT_ON} === 0"))
    page.set_input_files("#file", place.clips / "anger.mp4")
    assert page.evaluate("document.getElementById('clip').srcObject === null")
    page.click("#go")
    state(page, "Done")


def test_an_empty_file_is_refused_in_a_sentence(seen: Visit) -> None:
    page = seen.page
    page.set_input_files("#file", {"name": "empty.mp4", "mimeType": "video/mp4", "buffer": b""})
    page.click("#go")
    expect(page.locator("#fault")).to_have_text("The file is empty; choose another one.")
    seen.troubles[:] = []  # of the player


def test_live_opens_one_camera_and_closes_it(browser: Browser, place: Place) -> None:
    with visit(browser, place.address, "/live") as seen:
        page = seen.page
        page.evaluate(ASK_FIRST)
        page.evaluate(SUBMIT_TWICE)
        page.wait_for_timeout(300)
        assert page.evaluate("window.asked") == 1
        page.click("#cancel")  # before the browser allows it
        page.evaluate("window.allow()")
        until(page, lambda: page.evaluate("window.opened.length === 1"))
        until(page, lambda: page.evaluate(f"{LEFT_ON} === 0"))
        expect(page.locator("#state")).to_have_text("Stopped")
        page.click("#go")
        until(page, lambda: page.evaluate("window.asked === 2"))
        page.evaluate("window.allow()")
        expect(page.locator("#state")).to_have_text("Watching and listening", timeout=LONG_MS)
        page.click("#cancel")
        assert page.evaluate(LEFT_ON) == 0
        assert seen.troubles == []


def test_live_ends_in_a_sentence_when_the_camera_is_gone(browser: Browser, place: Place) -> None:
    with visit(browser, place.address, "/live") as seen:
        page = seen.page
        page.select_option("#window", "2")
        page.click("#go")
        expect(page.locator("#state")).to_have_text("Watching and listening", timeout=LONG_MS)
        page.evaluate("document.getElementById('camera').srcObject.getVideoTracks()[0].stop()")
        said = "The camera or the microphone is gone; connect it and start again."
        expect(page.locator("#fault")).to_have_text(said)
        expect(page.locator("#state")).to_have_text("Stopped")
        expect(page.locator("#go")).to_be_enabled()
        assert seen.troubles == []


def test_live(browser: Browser, place: Place, tmp_path: Path) -> None:
    with visit(browser, place.address, "/live") as seen:
        page = seen.page
        seen.pictures(tmp_path, "live-start")
        page.select_option("#window", "2")
        page.click("#go")
        page.locator(".panel .state.good").first.wait_for(timeout=LONG_MS)
        # An answered window says how far its answer is behind the end of the window, and so does the page.
        behind = re.fullmatch(r"(\d+ ms|\d+\.\d s) behind", page.inner_text(".panel .state.good >> nth=0"))
        assert behind is not None
        expect(page.locator("#state")).to_contain_text(" behind")
        page.locator(".panel >> nth=1").wait_for(timeout=LONG_MS)
        seen.pictures(tmp_path, "live")
        seen.require_accessible()
        page.click("#cancel")
        expect(page.locator("#state")).to_have_text("Stopped")
        expect(page.locator("#go")).to_be_enabled()
        assert page.evaluate("document.getElementById('camera').srcObject") is None
        assert seen.troubles == []
        assert seen.foreign == []


def test_doors(place: Place) -> None:
    with httpx.Client(base_url=place.address, trust_env=False) as client:
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
        for path in ("/explain?version=1", "/feedback", "/pair", "/reveal", "/open"):
            assert client.post(path, headers={"Origin": "http://evil.example"}).status_code == 403
        for name in ("..%2fsecret.mp4", "%2e%2e/log", "%2fetc%2fpasswd", "gone.mp4"):
            assert client.get(f"/clips/{name}").status_code == 404
        (place.clips / "labels.csv").write_text("anger.mp4,anger")
        assert client.get("/clips/labels.csv").status_code == 404
        assert client.get("/clips/anger.mp4").headers["content-type"] == "video/mp4"
        policy = client.get("/").headers
        assert "script-src 'self'" in policy["content-security-policy"]
        assert "camera=(self)" in policy["permissions-policy"]
        for path, sent, said in (
            ("/feedback", {"id": "unknown", "thumb": "up"}, "not remembered any more"),
            ("/feedback", {"id": "a", "thumb": "sideways"}, "thumb"),
            ("/feedback", {"id": "a", "more": 1}, "more"),
            ("/pair", {"versions": ["1"]}, "versions"),
            ("/open", {"version": "../first"}, "no version '../first' to choose"),
        ):
            answer = client.post(path, json=sent)
            assert answer.status_code in (400, 404, 503)
            assert said in answer.json()["error"]["message"]
        for query, content in (
            ("", b"film"),
            ("version=1", b""),
            ("version=1&clip=a.mp4", b"film"),
            ("side=x", b"f"),
        ):
            assert client.post(f"/explain?{query}", content=content).status_code == 400
        lines = client.post("/explain?version=1&clip=../log", timeout=60).text.splitlines()
        assert json.loads(lines[-1]) == {
            "kind": "error", "sentence": "no such file below the served folder", "code": "clip",
        }  # fmt: skip
