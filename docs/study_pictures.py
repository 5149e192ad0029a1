"""Takes the pictures of docs/studies.md from a study that is prepared, with headless Chromium.

    apt-get install -y chromium
    .venv/bin/python docs/study_pictures.py NAME [WORKSPACE]

NAME is a study with pairs and ratings in WORKSPACE, by default the current folder. It is copied, so its
answers stay as they are. Writes study-emotion.png, study-pair.png, study-phone.png and, of simulated raters,
study-report.png into docs/pictures/.
Look at them before you commit them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pictures import FOLDER, shrink

SCREEN, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
WAIT_MS = 60_000
LISTENS_SECONDS = 60


@contextlib.contextmanager
def served(name: str, workspace: Path) -> Iterator[tuple[str, str]]:
    """Serves a copy of the study; yields its address and a token."""
    from erv.study.answers.database import Database
    from erv.study.pages.app import MOST_BYTES, application
    from erv.study.plan import folder_of, read_study
    from erv.web.run import LOOPBACK, Server, hosts_of, listening
    from erv.web.site import site

    with tempfile.TemporaryDirectory() as folder, listening(LOOPBACK, 0) as ear:
        copy = Path(folder) / name
        shutil.copytree(workspace / folder_of(name), copy)
        study = read_study(copy)
        database = Database.open(f"sqlite:///{folder}/answers.db", study)
        app = site(application(study, database), hosts=hosts_of(LOOPBACK), most_bytes=MOST_BYTES)
        address: list[str] = []
        started = threading.Event()

        def announce(where: str) -> None:
            address.append(where)
            started.set()

        server = Server(app, announce, ear)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]})
        thread.start()
        try:
            if not started.wait(LISTENS_SECONDS):
                sys.exit("the server did not start")
            yield address[0], database.invite()[0].token
        finally:
            server.should_exit = True
            thread.join()
            database.close()


def take(page: Any, name: str) -> None:
    """Writes what the window shows."""
    page.wait_for_timeout(500)
    path = FOLDER / f"{name}.png"
    path.write_bytes(shrink(page.screenshot(animations="disabled")))
    print(f"{path}: {path.stat().st_size // 1000} kB")


def seek(page: Any, share: float) -> None:
    """Shows the picture at a share of the clip's length, once it is there."""
    page.wait_for_function("document.getElementById('clip').readyState >= 2")
    page.locator("#clip").evaluate("(clip, share) => { clip.currentTime = share * clip.duration; }", share)
    page.wait_for_function("(clip => !clip.seeking && clip.readyState >= 2)(document.getElementById('clip'))")
    page.wait_for_timeout(1500)  # until the browser has hidden that it was loading


def answer(page: Any) -> str:
    """Watches the clip and says that it shows anger; returns the kind of question that follows."""
    page.keyboard.press("Space")
    page.wait_for_selector("[data-after-clip]:not(:disabled)")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.wait_for_selector("form[action='/answer']")
    page.wait_for_load_state("load")
    return "pair" if page.locator("input[name=preferred]").count() else "rating"


def take_report(browser: Any, name: str, workspace: Path) -> None:
    """Lets simulated raters answer the study, and shows the top of the report."""
    from erv.study.analysis.report import FOLDER as REPORT
    from erv.study.analysis.report import PAGE, Level
    from erv.study.plan import folder_of, read_key, read_study
    from erv.study.rehearsal import rehearse
    from erv.study.simulation import Model

    study = read_study(workspace / folder_of(name))
    policies = sorted(read_key(study).policies, key=lambda policy: policy == "erv")
    model = Model({policy: 0.7 * place for place, policy in enumerate(policies)}, careless=0.1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / name
        rehearse(study, copy, model, raters=None, seed=1, level=Level(0.95, 2000, 1))
        page = browser.new_page(viewport={"width": 1120, "height": 960})
        page.goto((copy / REPORT / PAGE).as_uri())
        take(page, "study-report")


def main() -> None:
    """Takes them all."""
    from playwright.sync_api import sync_playwright

    if len(sys.argv) < 2:
        sys.exit(__doc__)
    name, workspace = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".").resolve()
    FOLDER.mkdir(exist_ok=True)
    with served(name, workspace) as (address, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=SCREEN, locale="en-GB")
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{address}/enter?token={token}")
        page.locator("form button.primary").click()
        page.locator("main a.button.primary").click()
        missing = {"emotion", "pair", "rating"}
        while missing:
            page.wait_for_selector("form[action='/emotion']")
            page.wait_for_load_state("load")
            if "emotion" in missing:
                seek(page, 0.5)
                take(page, "study-emotion")
                seek(page, 0.0)
                missing.discard("emotion")
            kind = answer(page)
            seek(page, 0.5)
            for key in "1" if kind == "pair" else "4532":
                page.keyboard.press(key)
            if kind in missing:
                missing.discard(kind)
                page.set_viewport_size(SCREEN if kind == "pair" else PHONE)
                if kind == "rating":
                    page.locator("h1").evaluate("title => title.scrollIntoView()")
                take(page, "study-pair" if kind == "pair" else "study-phone")
                page.set_viewport_size(SCREEN)
            before = page.locator("#clip").get_attribute("data-item")
            page.keyboard.press("Enter")
            page.wait_for_function("was => document.getElementById('clip')?.dataset.item !== was", arg=before)
        take_report(browser, name, workspace)
        browser.close()


if __name__ == "__main__":
    main()
