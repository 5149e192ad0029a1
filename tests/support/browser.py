"""Chromium or Chrome, driven by Playwright: pages of our own servers as people see and use them."""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

_PROGRAMS = ("chromium", "google-chrome")
WIDTHS = {1280: 800, 390: 844}  # pixels of CSS: the width of a screen and its height
_WAIT_MS = 30_000
_FLAGS = [
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    # A camera that shows a moving pattern and a microphone that beeps.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
_SERIOUS = ("serious", "critical")


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A headless Chromium, ended afterwards; one is enough for a module.

    Raises:
        AssertionError: this machine has none.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=[*_FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()
    # Playwright leaves suspended greenlets. Collected in the middle of `ast.parse`, they break it (3.11).
    gc.collect()


@contextmanager
def chromium_of(browser: Browser, profile: Path) -> Iterator[BrowserContext]:
    """A headless Chromium of its own, whose data stay in a folder; ended afterwards."""
    context = browser.browser_type.launch_persistent_context(
        profile, executable_path=_program(), args=_FLAGS, locale="en-GB"
    )
    try:
        yield context
    finally:
        with contextlib.suppress(Error):  # it may be gone
            context.close()


def killed_chromium(browser: Browser, profile: Path, address: str, use: Callable[[Page], None]) -> None:
    """Opens a page in a Chromium of its own, and kills all its processes (SIGKILL) when it was used.

    Args:
        browser: whose program it is.
        profile: the folder that it keeps its data in.
        address: of the page.
        use: of the page.
    """
    with chromium_of(browser, profile) as context:
        page = context.new_page()
        page.goto(address)
        use(page)
        processes = psutil.Process().children(recursive=True)
        mine = [one for one in processes if str(profile) in " ".join(one.cmdline())]
        assert mine, "the browser's processes were not found"
        for one in mine:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(mine, timeout=30)


def _program() -> str:
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    assert program is not None, "no Chromium on this machine; `apt-get install -y chromium`"
    return program


class Visit:
    """What somebody sees: a page in a profile of its own.

    Attributes:
        page: Playwright's page.
        troubles: what its console complained about: errors, warnings, uncaught exceptions, refused content.
        foreign: addresses that it asked for on other servers than the one that it was opened on.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        context.set_default_timeout(_WAIT_MS)
        self.context, self._address = context, urlsplit(address).netloc
        self.troubles: list[str] = []
        self.foreign: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on(
            "console",
            lambda said: (
                self.troubles.append(f"{said.type}: {said.text}")
                if said.type in ("error", "warning")
                else None
            ),
        )
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._address:
            self.foreign.append(url)

    def require_accessible(self) -> None:
        """Fails with the findings of axe that are serious or critical."""
        # axe is put into the page by the DevTools protocol, which the page's policy doesn't stop.
        found = Axe().run(self.page).response["violations"]
        serious = [
            f"{item['id']}: {item['help']}: {[node['html'][:200] for node in item['nodes']]}"
            for item in found
            if item["impact"] in _SERIOUS
        ]
        assert not serious, "\n".join(serious)

    def pictures(self, folder: Path, name: str) -> list[Path]:
        """Takes pictures of the whole page as a screen and as a phone show it, and fails if it is too wide.

        Returns:
            The PNGs `NAME-WIDTH.png`. The window keeps the size that it had.
        """
        folder.mkdir(parents=True, exist_ok=True)
        before = self.page.viewport_size
        written = []
        for width, height in WIDTHS.items():
            self.page.set_viewport_size({"width": width, "height": height})
            path = folder / f"{name}-{width}.png"
            self.page.screenshot(path=path, full_page=True, animations="disabled")
            written.append(path)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name}: the page is {wide} pixels wide in a window of {width}"
        if before is not None:
            self.page.set_viewport_size(before)
        return written


@contextmanager
def visit(
    browser: Browser,
    address: str,
    path: str = "/",
    *,
    width: int = 1280,
    dark: bool = False,
    language: str = "en-GB",
    password: str | None = None,
) -> Iterator[Visit]:
    """Opens a page as somebody who was never there.

    Args:
        browser: see `chromium`.
        address: of the server, such as `http://127.0.0.1:8000`.
        path: of the page.
        width: of the window, one of `WIDTHS`.
        dark: whether the system prefers dark colours.
        language: of the browser.
        password: the server's key.
    """
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS[width]},
        color_scheme="dark" if dark else "light",
        locale=language,
        permissions=["camera", "microphone"],
        http_credentials={"username": "erv", "password": password} if password else None,
    )
    try:
        seen = Visit(context, address)
        seen.page.goto(address + path)
        yield seen
    finally:
        context.close()
