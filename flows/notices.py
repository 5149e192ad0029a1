"""Automations of Prefect that tell people of failed runs, new champions and drift in training.

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

from prefect.automations import Automation, CallWebhook, EventTrigger, Posture, ResourceSpecification
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.types import SecretDict
from pydantic import SecretStr

from erv.environment import load_environment
from erv.errors import ErvError
from erv.register.news import EVENT as CHAMPION
from erv.stack.deployments import declared
from flows.drift import EVENT as DRIFT
from flows.drift import MODEL_LABEL
from flows.team import block_of, model_here, tag_of

FAILED, CROWNED, DRIFTED = "a run failed", "a new champion", "training drifts"
_FAILURE = (
    '{{ flow.name ~ " (" ~ flow_run.name ~ ") " ~ flow_run.state.name ~ ": "'
    ' ~ (flow_run.state.message or "") ~ "\\n" ~ (flow_run | ui_url) }}'
)
_SAID = "{{ event.payload.text }}"


def main() -> int:
    """Makes sure that the automations are there; says so."""
    url = load_environment().notify_url
    if url is None:
        print("ERV_NOTIFY_URL is not set, so nobody is told of failures and new champions")  # noqa: T201
        return 0
    try:
        model = model_here()
    except ErvError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    flows = sorted({name.partition("/")[0] for name in declared(Path())})  # those of `erv run` too
    for name in furnish(url, model, flows):
        print(f"automation {name!r} posts to ERV_NOTIFY_URL")  # noqa: T201
    return 0


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
    ]
    for automation in automations:
        _keep(automation)
    return [automation.name for automation in automations]


def _on(event: str, match: dict[str, str]) -> EventTrigger:
    resource = ResourceSpecification.model_validate(match)
    return EventTrigger(expect={event}, match=resource, posture=Posture.Reactive, threshold=1)


def _automation(name: str, trigger: EventTrigger, block: UUID, text: str) -> Automation:
    inner = text.removeprefix("{{").removesuffix("}}").strip()
    payload = '{"text": {{ (' + inner + ") | tojson }}}"
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
