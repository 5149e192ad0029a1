"""`transformers serve`, a real server of chat models in local folders."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns once a condition holds; fails after some time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def transformers_serve(folder: Path, meanwhile: Callable[[], object]) -> Iterator[str]:
    """Yields the address of a healthy server, which runs until the end of the block.

    Args:
        folder: for its log.
        meanwhile: called while it starts, which takes seconds.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "DO_NOT_TRACK": "1"}
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1"]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env={**os.environ, **offline, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )

    def healthy() -> bool:
        assert server.poll() is None, (folder / "serve.log").read_text()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer,
        ):
            return answer.status == 200
        return False

    try:
        meanwhile()
        wait_for(healthy, 120)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)
