"""A headless Chromium that opens pages from files, spoken to over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

WAIT_SECONDS = 60
FLAGS = [
    "--headless",
    "--no-sandbox",  # so that root may start it
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]
KEYS = {
    "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, "Enter": 13, "Tab": 9,
    "Home": 36, "End": 35,
}  # fmt: skip


def installed() -> str | None:
    """The path of Chromium, if this machine has it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """A tab.

    Attributes:
        troubles: what its console complained about: errors, warnings, uncaught exceptions, refused content.
        requests: addresses of everything that was fetched, except `data:`.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, count(1)
        self.troubles: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; raises RuntimeError if Chromium refuses it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if "method" in answer:
                self._note(answer["method"], answer["params"])
            elif answer["id"] == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def _note(self, event: str, values: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.troubles.append(str(details.get("exception", {}).get("description", details["text"])))
        elif event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.troubles.append(f"console.{values['type']}: {values['args']}")
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"{values['entry']['source']}: {values['entry']['text']}")
        elif event == "Network.requestWillBeSent":
            url = str(values["request"]["url"])
            if not url.startswith("data:"):
                self.requests.append(url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; raises RuntimeError if it throws."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the window, in pixels of CSS."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)

    def open(self, url: str) -> None:
        """Opens a page and waits until it is complete."""
        self.call("Page.navigate", url="about:blank")  # or only the part after # would change
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href !== {json.dumps('about:blank')}")

    def wait(self, script: str) -> None:
        """Waits until a JavaScript expression is true; raises AssertionError after `WAIT_SECONDS`."""
        end = time.monotonic() + WAIT_SECONDS
        while not self._is_true(script):
            assert time.monotonic() < end, f"not true after {WAIT_SECONDS} s: {script}"
            time.sleep(0.05)

    def _is_true(self, script: str) -> bool:
        try:
            return bool(self.evaluate(script))
        except RuntimeError as error:
            # A link or key that leads to another page ends the script's page while it runs there.
            if "navigated" in str(error) or "context" in str(error):
                return False
            raise

    def press(self, key: str) -> None:
        """Presses and releases a key: a character, or one of `KEYS`."""
        shared: dict[str, Any] = {"key": key}
        if key in KEYS:
            shared |= {"code": key, "windowsVirtualKeyCode": KEYS[key]}
            typed = {"text": "\r"} if key == "Enter" else {}
        else:
            typed = {"text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", **shared, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def write(self, text: str) -> None:
        """Types a text where the focus is."""
        for character in text:
            self.press(character)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Writes a PNG of what the window shows, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium() -> Iterator[Tab]:
    """A headless Chromium with a profile of its own, ended afterwards."""
    program = installed()
    assert program is not None, "no Chromium on this machine; `apt-get install -y chromium`"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            with connect(_address(Path(profile), process), max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the first tab."""
    port, end = profile / "DevToolsActivePort", time.monotonic() + WAIT_SECONDS
    while not port.exists() or "\n" not in port.read_text():
        assert process.poll() is None, "Chromium ended at once; start it by hand to see why"
        assert time.monotonic() < end, f"Chromium did not start within {WAIT_SECONDS} s"
        time.sleep(0.1)
    number = port.read_text().split()[0]
    tabs = httpx.get(f"http://127.0.0.1:{number}/json/list", trust_env=False).json()
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
