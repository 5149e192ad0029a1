"""Takes the pictures of docs/serving.md from a finished `make demo`, with headless Chromium.

    apt-get install -y chromium
    .venv/bin/python docs/app_pictures.py [WORKSPACE]

WORKSPACE is where the demo ran, by default the current folder. Starts `erv app` with the demo's candidate
there, which needs no server, and asks it about a clip of the sample corpus. Writes app.png (an explanation
with its verdict), app-blind.png (the candidate and the cold start beside each other) and app-phone.png into
docs/pictures/. Look at them before you commit them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pictures import FOLDER
from study_pictures import take

SCREEN, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
WAIT_MS = 120_000
CLIPS = Path(".erv/sample/reasoning/video")
BUNDLE = Path("models/candidate")


@contextlib.contextmanager
def served(workspace: Path) -> Iterator[str]:
    """Runs `erv app` with the candidate, and with one whose policy is the cold start; yields its address."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "cold-start"
        shutil.copytree(workspace / BUNDLE, other)
        shutil.rmtree(other / "policy")
        shutil.copytree(workspace / "models/policy/sft", other / "policy")
        log = Path(folder) / "log"
        bundles = ["--bundle", str(BUNDLE), "--bundle", str(other)]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["erv", "app", "--port", "0", *bundles],
                cwd=workspace,
                env={**os.environ, "ERV_SERVE_ROOT": str(workspace / CLIPS), "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=stream,
            )
        try:
            end = time.monotonic() + WAIT_MS / 1000
            while not (found := re.search(r"http://\S+:\d+", log.read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"the app did not start: {log.read_text()}")
                time.sleep(0.1)
            yield found[0]
        finally:
            process.terminate()
            process.wait(60)


def explain(page: Any, panels: int = 1) -> None:
    """Asks about the first clip of the server, and waits for all answers."""
    from playwright.sync_api import expect

    page.check("input[value=served]")
    page.select_option("#served", index=1)
    page.click("#go")
    for number in range(panels):
        expect(page.locator(".panel .state").nth(number)).to_have_text("Done", timeout=WAIT_MS)
    page.locator("#answers").evaluate("place => place.scrollIntoView()")


def main() -> None:
    """Takes them all."""
    from playwright.sync_api import sync_playwright

    workspace = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    if not (workspace / BUNDLE).is_dir() or not (workspace / CLIPS).is_dir():
        sys.exit(f"{workspace}: no finished demo here; run `make demo` or name its folder")
    FOLDER.mkdir(exist_ok=True)
    with served(workspace) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport=SCREEN, locale="en-GB")
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        explain(page)
        take(page, "app")
        page.set_viewport_size(PHONE)
        page.locator("#answers").evaluate("place => place.scrollIntoView()")
        take(page, "app-phone")
        page.set_viewport_size(SCREEN)
        page.goto(address)
        page.check("#compare")
        page.check("#blind")
        explain(page, 2)
        page.locator("#answers").evaluate("place => place.scrollIntoView()")
        take(page, "app-blind")
        browser.close()


if __name__ == "__main__":
    main()
