"""`erv doctor` says what it finds when it finds it: one that has to wait holds up what comes after it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.state import write_workspace


def test_findings_are_printed_before_a_slow_check_ends(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        doctor = subprocess.Popen(
            [sys.executable, "-c", "from erv.cli import main; main()", "doctor"],
            cwd=tmp_path,
            env={**os.environ, "ERV_MLFLOW_URI": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert doctor.stdout is not None
        when = {line.split()[1]: time.monotonic() for line in doctor.stdout if line[0] in "owF"}
        assert doctor.wait(60) == 1
    assert list(when).index("python") < list(when).index("disk") < list(when).index("tracking")
    # It waits five seconds for an answer.
    assert when["tracking"] - when["disk"] > 4
