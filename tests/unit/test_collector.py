"""The collector's settings hold until the process has really ended."""

import subprocess
import sys

SCRIPT = """
import atexit, gc
atexit.register(lambda: print("frozen at the end:", gc.get_freeze_count() > 0))
from erv.collector import collect_seldom
collect_seldom()
print("frozen before:", gc.get_freeze_count() > 0)
print("threshold:", gc.get_threshold()[0] > 700)
"""


def test_nothing_is_collected_at_the_end_of_the_process() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines() == [
        "frozen before: False",
        "threshold: True",
        "frozen at the end: True",
    ]
