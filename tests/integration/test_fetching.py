"""What a killed process leaves in the cache, with a real SeaweedFS: swept by the next one, parts apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.pinning import pin
from erv.sources import fetch_all
from erv.storage.store import open_store
from tests.integration.proxy import Proxy
from tests.support.clips import row_of

pytestmark = pytest.mark.integration

MB = 1 << 20
PIN = """
import sys
from pathlib import Path
from erv.pinning import pin
from erv.environment import load_environment
from erv.storage.store import open_store
uri, folder = sys.argv[1], Path(sys.argv[2])
pin("killed", uri, open_store(load_environment(folder)), cache=folder / "cache")
"""


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    relay = Proxy(str(stack.s3_endpoint))
    yield relay
    relay.close()


@pytest.mark.parametrize("by", ["pin", "fetch_all"])
def test_what_a_killed_pin_left_goes_with_the_next_one_of_any_source(
    stack: Environment, proxy: Proxy, by: str, tmp_path: Path
) -> None:
    store, cache, base = open_store(stack), tmp_path / "cache", f"s3://erv-raw/fetching/{by}"
    (tmp_path / "big").write_bytes(os.urandom(32 * MB))
    store.upload(tmp_path / "big", f"{base}/killed/big")
    for number in range(40):
        store.write(os.urandom(MB // 2), f"{base}/killed/small/{number:02d}")
    store.write(b"clip", f"{base}/other/clip.mp4")
    lock = pin("other", f"{base}/other", store, cache=tmp_path / "earlier")

    def parts() -> set[Path]:
        return set(cache.glob("incoming/*/.*.part"))

    def left() -> list[Path]:
        return [path for path in cache.rglob(".*") if path.suffix not in (".part", ".lock")]

    proxy.delay = 0.004
    environment = {**os.environ, **replace(stack, s3_endpoint=proxy.endpoint).variables()}
    child = subprocess.Popen([sys.executable, "-c", PIN, f"{base}/killed", str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while proxy.received < 16 * MB and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    proxy.delay = 0.0
    (part,) = parts()
    size = part.stat().st_size
    assert size > 0
    assert left()
    if by == "pin":
        pin("other", f"{base}/other", store, cache=cache)
    else:
        list(fetch_all([row_of(lock, "clip.mp4")], lock, store, cache=cache))
    assert left() == []
    assert parts() == {part}
    assert part.stat().st_size == size
    through = open_store(replace(stack, s3_endpoint=proxy.endpoint))
    time.sleep(0.2)  # what was on its way to the killed process
    with proxy.counted() as count:
        found = pin("killed", f"{base}/killed", through, cache=cache)
    assert count[0] < 52 * MB - size + 2 * MB
    assert found == pin("killed", f"{base}/killed", store, cache=tmp_path / "fresh")
    assert parts() == set()
