"""A stage that is told to stop does so, wherever the signal arrives."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# The signal arrives while Python runs a callback of a weak reference, from which nothing can be raised.
PROGRAM = """
import os, signal, sys, time, weakref
from erv.stage import Stopped, stop_on_signals

class Held:
    pass

def dies(_):
    os.kill(os.getpid(), signal.{signal})
    for _ in range(1000):
        pass

stop_on_signals()
held = Held()
seen = weakref.ref(held, dies)
try:
    del held
    time.sleep(20)
except Stopped:
    sys.exit(143)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_a_callback_of_a_weak_reference_stops_it(name: str, code: int) -> None:
    program = PROGRAM.format(signal=name)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        # A runner in the background may have SIGINT ignored; a terminal has not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr == ""


def test_other_errors_that_python_drops_are_reported() -> None:
    program = "import sys, weakref\nfrom erv.stage import stop_on_signals\nstop_on_signals()\n"
    program += "class A:\n    def __del__(self): raise ValueError('dropped')\nA()"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15)
    assert "ValueError: dropped" in ended.stderr
