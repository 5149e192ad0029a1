"""Errors of background services in the log of our Prefect server."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

from erv.stack.background import service_errors
from erv.stack.processes import last_error, start

NOW = datetime(2026, 3, 2, 12, 0)


def line(time: str, level: str = "ERROR", logger: str = "docket.dependencies", call: str = "work") -> str:
    return f"2026-03-02 {time}.000 | {level:7} | {logger} - ↩ [   66ms] {call}(){{{call}}}\n"


TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1\nsqlite3.OperationalError: disk\n'


def test_errors_are_counted_by_service_since_the_start_and_within_the_hour(tmp_path: Path) -> None:
    log = tmp_path / "prefect.log"
    log.write_text(
        "--- 2026-03-02 11:00:00 start of prefect\n"
        + line("11:50:00", call="before_the_restart")
        + "--- 2026-03-02 11:51:00 start of prefect\n"
        + line("10:59:00", call="old")
        + line("11:55:00") + TRACE
        + line("11:56:00", level="WARNING")
        + line("11:57:00", logger="uvicorn.error", call="request")
        + line("11:58:00") + TRACE
        + line("11:59:00", call="other")
    )  # fmt: skip
    other, work = service_errors(log, NOW)
    assert (work.service, work.count, work.reason) == ("work", 2, "sqlite3.OperationalError: disk")
    assert (f"{work.first:%H:%M}", f"{work.last:%H:%M}") == ("11:55", "11:58")
    assert (other.service, other.count) == ("other", 1)
    assert "other()" in other.reason, "without a traceback, what was logged"


def test_a_line_of_pythons_logging_is_no_start(tmp_path: Path) -> None:
    """It begins as the line of a start does, and what came before it was lost."""
    log = tmp_path / "prefect.log"
    for text in (line("11:49:00", call="before"), f"{line('11:50:00') + TRACE}--- Logging error ---\nx\n"):
        command = [sys.executable, "-c", f"print({text!r}, end='')"]
        record = start("prefect", command, dict(os.environ), tmp_path, log, "")
        os.waitpid(record.pid, 0)
    (error,) = service_errors(log, NOW)
    assert (error.service, error.reason) == ("work", "sqlite3.OperationalError: disk")
    assert last_error(log) == "sqlite3.OperationalError: disk"
    log.write_text("no start\nRuntimeError: first\n--- Logging error ---\nthe last line\n")
    assert last_error(log) == "RuntimeError: first"


def test_no_log_is_no_error(tmp_path: Path) -> None:
    assert service_errors(tmp_path / "prefect.log", NOW) == []
