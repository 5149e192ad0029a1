"""Schedules of a Prefect server that get no runs, asked over its API, so of a server elsewhere too.

A schedule is served by a background service of the server. While that fails, the server answers as always,
deployments look fine, and nothing ever runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from erv.environment import Environment

if TYPE_CHECKING:
    import httpx

# The scheduler passes once a minute, and after a change of a deployment within seconds.
_GRACE = timedelta(minutes=3)
# Prefect plans no run that is further away.
_HORIZON = timedelta(days=90)
_PAGE = 200
_MONTHLY_OR_MORE = {"@hourly", "@daily", "@midnight", "@weekly", "@monthly"}


@dataclass(frozen=True)
class Silent:
    """A deployment with an active schedule and no run ahead.

    Attributes:
        name: `flow/deployment`.
        since: time of its last scheduled run, or of the schedule's last change if there never was one.
    """

    name: str
    since: datetime


def silent_schedules(environment: Environment) -> list[Silent]:
    """The deployments whose active schedule must have a run ahead, and has none; by name.

    A schedule that may be over, or whose next time may be months away, is not judged: one with a rule
    (`rrule`), and a cron expression that names months.

    Raises:
        httpx.HTTPError: the server can't be asked.
    """
    import httpx

    url = (environment.prefect_api_url or "").rstrip("/")
    with httpx.Client(
        base_url=url,
        headers=environment.prefect_headers,
        timeout=10.0,
        trust_env="//127.0.0.1" not in url,  # a proxy of the environment can't reach this machine
    ) as client:
        _bring_token(client)
        found = [silent for deployment in _deployments(client) if (silent := _silent(client, deployment))]
    return sorted(found, key=lambda silent: silent.name)


def _bring_token(client: httpx.Client) -> None:
    """Has the client send what a server with protection against foreign pages asks of every POST."""
    name = str(uuid.uuid4())
    answer = client.get("/csrf-token", params={"client": name})
    if answer.status_code in (404, 422):  # the server has no such protection
        return
    token = answer.raise_for_status().json()["token"]
    client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name})


def _ask(client: httpx.Client, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = client.post(path, json=body).raise_for_status().json()
    return answer


def _deployments(client: httpx.Client) -> Iterator[dict[str, Any]]:
    offset = 0
    while page := _ask(client, "/deployments/filter", {"limit": _PAGE, "offset": offset}):
        yield from page
        offset += len(page)


def _silent(client: httpx.Client, deployment: Mapping[str, Any]) -> Silent | None:
    now = datetime.now(UTC)
    due = [
        schedule
        for schedule in deployment.get("schedules") or []
        if schedule["active"] and _must_have_a_run(schedule["schedule"], now)
    ]
    changed = [datetime.fromisoformat(schedule["updated"]) for schedule in due]
    if deployment.get("paused") or not due or now - max(changed) < _GRACE:
        return None
    body = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        # One that somebody has asked for, for a later time, is no answer of the scheduler.
        "flow_runs": {"tags": {"all_": ["auto-scheduled"]}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 1,
    }
    last = [
        datetime.fromisoformat(run["expected_start_time"]) for run in _ask(client, "/flow_runs/filter", body)
    ]
    if last and last[0] > now:
        return None
    flow = client.get(f"/flows/{deployment['flow_id']}").raise_for_status().json()["name"]
    return Silent(f"{flow}/{deployment['name']}", max([*last, *changed]))


def _must_have_a_run(schedule: Mapping[str, Any], now: datetime) -> bool:
    """Whether a schedule's next time is certainly near enough to be planned."""
    if "interval" in schedule:
        anchor = datetime.fromisoformat(schedule["anchor_date"])
        return schedule["interval"] <= _HORIZON.total_seconds() and anchor < now + _HORIZON
    words = str(schedule.get("cron", "")).split()
    if len(words) == 1:
        return words[0].lower() in _MONTHLY_OR_MORE
    return len(words) >= 5 and words[3] == "*"
