"""Automations of Prefect that tell people of failed runs, new champions, drift in training and takeovers.

    ERV_NOTIFY_URL=https://hooks.example/... erv run --deploy

Each posts `{"text": "..."}` to the address, which Slack, Mattermost and others take as they are. The address
is often a secret, so it comes from the environment and lies in a block of Prefect, which hides it. Block and
automations belong to one registered model: another team on the same server has its own. Repeating it updates
what is there. To end it, delete or pause the automations on Prefect's page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect.automations import Automation, CallWebhook, EventTrigger, Posture, ResourceSpecification
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.types import SecretDict
from pydantic import SecretStr

from erv.environment import load_environment
from erv.errors import ErvError
from erv.register.news import EVENT as CHAMPION
from erv.stack.deployments import DEPLOYED_BY, declared
from erv.stack.prefect_events import MODEL_LABEL
from erv.stack.takeover import EVENT as TAKEN_OVER
from flows.drift import EVENT as DRIFT
from flows.team import RUN_BY, block_of, model_here, tag_of

FAILED, CROWNED, DRIFTED, MOVED = (
    "a run failed",
    "a new champion",
    "training drifts",
    "deployments are taken over",
)
# Whose run it is and where it works: by its tag, or that of its deployment and the work pool of the clone.
_WHOSE = "".join(
    f'{{% for tag in flow_run.tags if tag.startswith("{start}") %}}{words}'
    f"{{{{ tag[{len(start)}:] }}}}{{% endfor %}}"
    for start, words in {RUN_BY: " of ", DEPLOYED_BY: " deployed by "}.items()
)
_FAILURE = (
    f"{{{{ flow.name }}}} ({{{{ flow_run.name }}}}){_WHOSE}"
    '{{ " in work pool " ~ work_pool.name if work_pool.name else "" }}'
    ' {{ flow_run.state.name }}: {{ flow_run.state.message or "" }}\n{{ flow_run | ui_url }}'
)
_SAID = "{{ event.payload.text }}"


def main() -> int:
    """Makes sure that the automations are there; says so."""
    try:
        url, model = load_environment().notify_url, model_here()
    except ErvError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    if url is None:
        try:
            print(without_address(model, set_up(model)))  # noqa: T201
        except (PrefectException, HTTPError) as error:
            reason = " ".join(str(error).split())[:200]
            print(f"ERV_NOTIFY_URL is not set; what was set up before can't be asked for: {reason}")  # noqa: T201
        return 0
    flows = sorted({name.partition("/")[0] for name in declared(Path())})  # those of `erv run` too
    for name in furnish(url, model, flows):
        print(f"automation {name!r} posts to ERV_NOTIFY_URL")  # noqa: T201
    return 0


def set_up(model: str) -> list[str]:
    """The names of the automations of a model that post: those that are there, and not paused."""
    names = [f"{model}: {news}" for news in (FAILED, CROWNED, DRIFTED, MOVED)]
    with get_client(sync_client=True) as client:
        return [
            name for name in names if any(one.enabled for one in client.read_automations_by_name(name=name))
        ]


def without_address(model: str, names: list[str]) -> str:
    """What to know where ERV_NOTIFY_URL is not set.

    Args:
        model: the registered model.
        names: of its automations that post.
    """
    if not names:
        return f"ERV_NOTIFY_URL is not set, so nobody is told of failures and new champions of {model}"
    return (
        "ERV_NOTIFY_URL is not set, so who is told stays as it is: what was set up before goes on posting to"
        f" the address given at the time ({', '.join(map(repr, names))}); Prefect's page pauses and deletes"
        " it"
    )


def furnish(url: str, model: str, flows: list[str]) -> list[str]:
    """Creates or updates block and automations of a model.

    Args:
        url: takes the posts.
        model: the registered model whose runs and champions count.
        flows: names of the flows whose failures count.

    Returns:
        The names of the automations.
    """
    headers = SecretDict({"Content-Type": "application/json"})
    hook = Webhook(url=SecretStr(url), headers=headers)
    block = UUID(str(hook.save(block_of(model), overwrite=True)))
    automations = [
        _automation(
            f"{model}: {FAILED}",
            EventTrigger(
                expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=[
                    {"prefect.resource.role": "flow", "prefect.resource.name": flows},
                    {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag_of(model)}"},
                ],
                posture=Posture.Reactive,
                threshold=1,
            ),
            block,
            _FAILURE,
        ),
        _automation(f"{model}: {CROWNED}", _on(CHAMPION, {"prefect.resource.name": model}), block, _SAID),
        _automation(f"{model}: {DRIFTED}", _on(DRIFT, {MODEL_LABEL: model}), block, _SAID),
        _automation(f"{model}: {MOVED}", _on(TAKEN_OVER, {MODEL_LABEL: model}), block, _SAID),
    ]
    for automation in automations:
        _keep(automation)
    return [automation.name for automation in automations]


def _on(event: str, match: dict[str, str]) -> EventTrigger:
    resource = ResourceSpecification.model_validate(match)
    return EventTrigger(expect={event}, match=resource, posture=Posture.Reactive, threshold=1)


def _automation(name: str, trigger: EventTrigger, block: UUID, text: str) -> Automation:
    payload = "{% set said %}" + text + '{% endset %}{"text": {{ said | tojson }}}'
    return Automation(
        name=name, trigger=trigger, actions=[CallWebhook(block_document_id=block, payload=payload)]
    )


def _keep(automation: Automation) -> None:
    """Creates an automation, or updates the one of its name."""
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(name=automation.name)
    if found:
        automation.id = found[0].id
        automation.update()
    else:
        automation.create()


if __name__ == "__main__":
    sys.exit(main())
