"""Errors of the background services of our own Prefect server, which stand only in its log.

The services (scheduler, late runs, events, ...) run beside the API. One that fails at each pass keeps no
request from being answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from erv.stack.processes import since_start

# The server writes the date before the time only because we ask for it: see `LOG_VARIABLES`.
_DATE = "%Y-%m-%d %H:%M:%S"
LOG_VARIABLES = {"PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": _DATE}
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+ \| (?P<level>\w+) +\| (?P<logger>[\w.]+) - (?P<text>.*)"
)
# Docket, which runs the services, ends its line with the call: `... schedule_deployments(){...}`.
_CALL = re.compile(r"(\w+)\([^()]*\)\{")
_LOGGERS = ("docket", "prefect.server.services", "prefect.server.events")
_ERRORS = {"ERROR", "CRITICAL"}
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Timeout)\w*(:|$)")
_RECENT = timedelta(hours=1)
_MOST_BYTES = 4_000_000


@dataclass(frozen=True)
class ServiceError:
    """Errors of one background service.

    Attributes:
        service: its name, such as `schedule_deployments`.
        first, last: local times of the first and the last of them that are looked at.
        count: how many.
        reason: the last one's exception, or what was logged; one line.
    """

    service: str
    first: datetime
    last: datetime
    count: int
    reason: str


def service_errors(log: Path, now: datetime) -> list[ServiceError]:
    """The errors of background services within the last hour and since the latest start, by service.

    Args:
        log: of the Prefect server that `erv stack up` has started; none is no error.
        now: local time.
    """
    found: dict[str, ServiceError] = {}
    for service, time, reason in _errors(_since_start(log)):
        if time < now - _RECENT:
            continue
        before = found.get(service)
        first, count = (before.first, before.count) if before else (time, 0)
        found[service] = ServiceError(service, first, time, count + 1, reason)
    return [found[service] for service in sorted(found)]


def _since_start(log: Path) -> list[str]:
    """The lines since the latest start, of the last few megabytes."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _MOST_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return since_start(text).splitlines()


def _errors(lines: list[str]) -> Iterator[tuple[str, datetime, str]]:
    """Service, time and reason of each error; its traceback is in the lines up to the next entry."""
    entries = [(number, match) for number, line in enumerate(lines) if (match := _LINE.match(line))]
    for place, (number, match) in enumerate(entries):
        end = entries[place + 1][0] if place + 1 < len(entries) else len(lines)
        if match["level"] not in _ERRORS or not match["logger"].startswith(_LOGGERS):
            continue
        call = _CALL.search(match["text"])
        service = call[1] if call else match["logger"].rpartition(".")[2]
        exceptions = [line.strip() for line in lines[number + 1 : end] if _EXCEPTION.match(line)]
        yield service, datetime.strptime(match["time"], _DATE), (exceptions or [match["text"]])[-1][:200]
