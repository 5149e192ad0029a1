"""Takes the pictures of the README from a finished `make demo`, with headless Chromium.

    apt-get install -y chromium
    .venv/bin/erv stack up
    .venv/bin/python docs/pictures.py [WORKSPACE]

WORKSPACE is where the demo ran, by default the current folder. Writes report.png (the top of the report's
page), mlflow.png (the run of the latest train flow) and prefect.png (its graph) into docs/pictures/. Look at
them before you commit them: the pages of MLflow and Prefect change with their versions. The environment of
`make install` has all it needs: websockets and httpx come with Prefect.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "pictures"
LARGEST = 200_000  # bytes
WAIT_SECONDS = 60
FLAGS = [
    "--headless",
    "--no-sandbox",  # so that root may start it
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # Prefect's graph is WebGL
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]


@dataclass(frozen=True)
class Picture:
    """A page, and what of it is shown.

    Attributes:
        name: of the file.
        url: of the page.
        ready: JavaScript that is true once the page shows what the picture is about.
        size: of the window, in pixels of CSS.
        box: what is kept of it: left, top, width, height.
        prepare: JavaScript that clears the view.
        headers: what the browser sends with each request of the page.
        before: JavaScript that runs before the page's own.
    """

    name: str
    url: str
    ready: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    prepare: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    before: str = field(default="", repr=False)


def pictures_of(workspace: Path) -> list[Picture]:
    """The three pages of the workspace's latest flow run.

    Raises:
        SystemExit: the report is missing, or MLflow knows no flow run.
    """
    from erv.environment import load_environment
    from erv.tracking.lock_entries import client_of

    report = workspace / "report" / "report.html"
    environment = load_environment(workspace)
    if not report.is_file() or not environment.mlflow_uri or not environment.prefect_ui_url:
        sys.exit(f"{workspace}: no finished demo here; run `make demo` or name its folder")
    client = client_of(environment)
    experiment = client.get_experiment_by_name(environment.mlflow_experiment)
    runs = experiment and client.search_runs(
        [experiment.experiment_id], "tags.`erv.kind` = 'flow'", order_by=["start_time DESC"], max_results=1
    )
    if not runs:
        sys.exit(f"{environment.mlflow_uri}: no run of the train flow; run `make demo` first")
    run = runs[0]
    flow_run = run.data.tags["prefect.flow_run_id"]
    # Where Prefect's page keeps the key once somebody has typed it.
    key = environment.prefect_headers.get("Authorization", "").removeprefix("Basic ")
    return [
        Picture("report", report.as_uri(), "true", (1000, 980), (0, 0, 1000, 980)),
        Picture(
            "mlflow",
            f"{environment.mlflow_uri}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}",
            "document.body.innerText.includes('Child runs')",
            (1100, 900),
            (0, 0, 1100, 900),
            "document.querySelector('[aria-label=Close]')?.click()",  # the assistant
            environment.mlflow_headers,
        ),
        Picture(
            "prefect",
            f"{environment.prefect_ui_url}/runs/flow-run/{flow_run}",
            "document.querySelector('canvas') !== null",
            (1280, 900),
            (256, 0, 1024, 500),
            before=f"localStorage.setItem('prefect-password', {json.dumps(key)})",
        ),
    ]


class Page:
    """A tab of Chromium, spoken to over its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result.

        Raises:
            RuntimeError: Chromium refuses it.
        """
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def take(self, picture: Picture) -> bytes:
        """A PNG of a page.

        Raises:
            SystemExit: the page does not show what it should in time.
        """
        width, height = picture.size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Page.enable")
        self.call("Network.enable")
        self.call("Network.setExtraHTTPHeaders", headers=dict(picture.headers))
        script = self.call("Page.addScriptToEvaluateOnNewDocument", source=picture.before)["identifier"]
        self.call("Page.navigate", url=picture.url)
        end = time.monotonic() + WAIT_SECONDS
        while not self.evaluate(f"document.readyState === 'complete' && ({picture.ready})"):
            if time.monotonic() > end:
                sys.exit(
                    f"{picture.url}: not shown after {WAIT_SECONDS} s; does `erv stack status` say ready?"
                )
            time.sleep(0.5)
        time.sleep(3)  # animations
        if picture.prepare:
            self.evaluate(picture.prepare)
            time.sleep(3)
        self.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        left, top, width, height = picture.box
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip)["data"])


@contextmanager
def chromium() -> Iterator[Page]:
    """A headless Chromium with a profile of its own, ended afterwards."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            with connect(_address(Path(profile), process), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the first tab."""
    import httpx

    port, end = profile / "DevToolsActivePort", time.monotonic() + WAIT_SECONDS
    while not port.exists() or "\n" not in port.read_text():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("chromium did not start; `chromium --headless --no-sandbox about:blank` may say why")
        time.sleep(0.1)
    tabs = httpx.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list").json()
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")


def shrink(png: bytes) -> bytes:
    """The picture in at most 256 colours, with as few as it takes to stay below `LARGEST`."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() < LARGEST:
            break
    return out.getvalue()


def main() -> None:
    """Takes them all."""
    pictures = pictures_of(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    FOLDER.mkdir(exist_ok=True)
    with chromium() as page:
        for picture in pictures:
            path = FOLDER / f"{picture.name}.png"
            path.write_bytes(shrink(page.take(picture)))
            print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
