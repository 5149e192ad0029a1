"""Free ports on 127.0.0.1 that stay the same from one start to the next."""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from erv.errors import StackError

# Below the range that systems use for outgoing connections, so that no connection can take one of our ports.
_FIRST, _LAST = 18000, 30000
_STEP = 20


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now (connections that linger in TIME_WAIT don't count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_free(ports: Collection[int], seconds: float) -> list[int]:
    """Waits until all ports are free; returns those that are still taken after `seconds`."""
    deadline = time.monotonic() + seconds
    taken = [port for port in ports if not is_free(port)]
    while taken and time.monotonic() < deadline:
        time.sleep(0.2)
        taken = [port for port in taken if not is_free(port)]
    return taken


def choose(workspace: Path, names: Collection[str], previous: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the previous one if it is free, otherwise the next free one.

    Raises:
        StackError: the whole range has no free port.
    """
    start = _FIRST + zlib.crc32(str(workspace).encode()) % ((_LAST - _FIRST) // _STEP) * _STEP
    candidates = iter([*range(start, _LAST), *range(_FIRST, start)])
    chosen: dict[str, int] = {}
    for name in names:
        port = previous.get(name)
        if port is not None and port not in chosen.values() and is_free(port):
            chosen[name] = port
    taken = {*chosen.values(), *previous.values()}
    for name in names:
        if name in chosen:
            continue
        port = next((p for p in candidates if p not in taken and is_free(p)), None)
        if port is None:
            raise StackError(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1; stop some servers")
        chosen[name] = port
        taken.add(port)
    return chosen
