"""The deployments of `prefect.yaml`, and whose they are on a Prefect server that several clones use.

A deployment runs in the folder of the clone that made it, by a worker of that clone, and its name belongs to
one clone at a time.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import StackError
from erv.files import parse_yaml
from erv.pipeline import read_stages
from erv.stack.pools import folder_of, read_pool
from erv.stack.prefect_api import ask
from erv.tracking.origin import machine_in

FILE = "prefect.yaml"
# The tag that says who deployed, and from which machine: `erv-deployed-by:Ann Lee (ann@box)`. `prefect.yaml`
# sets it.
DEPLOYED_BY = "erv-deployed-by:"
MODEL_TAG = "erv-model:"  # the tag that says of which registered model the runs are; `prefect.yaml` sets it
STAGES_VARIABLE = "ERV_STAGES"  # by which `erv run --deploy` tells the flows' forms what can be run
SOURCES_VARIABLE = "ERV_SOURCES"  # and which sources can be looked at
# The same for placements, with what `prefect.yaml` places: the server refuses a deployment whose own
# parameters don't fit, without a word that helps. A run says which of them is no stage.
PLACED_VARIABLE = "ERV_STAGES_TO_PLACE"
_FOLDER_STEP = "prefect.deployments.steps.set_working_directory"


@dataclass(frozen=True)
class Place:
    """Where the runs of a deployment work, and who decided that.

    Attributes:
        folder: the clone; None if something other than `erv run --deploy` made the deployment.
        by: `Ann Lee (ann@box)` or `ann@box`; None if it isn't recorded.
    """

    folder: str | None
    by: str | None

    def is_of(self, environment: Environment) -> bool:
        """Whether it is this clone; one without a recorded machine is known by its folder alone."""
        return self.folder == str(environment.workspace) and self.host in (None, platform.node())

    @property
    def host(self) -> str | None:
        """The machine; None if it isn't recorded."""
        return machine_in(self.by) if self.by else None

    def __str__(self) -> str:
        where = self.folder or "a folder that isn't recorded"
        return f"{where} on {self.host}, deployed by {self.by}" if self.by else where


@dataclass(frozen=True)
class Deployed:
    """A deployment of `prefect.yaml` as the server has it.

    Attributes:
        name: `flow/deployment`.
        id: Prefect's.
        pool: the work pool that its new runs wait in; None without one.
        place: where they work.
        schedules: how many active ones it has.
        one_at_a_time: whether a new run waits until another has ended, in whichever pool.
        model: the registered model; None if it isn't recorded.
        has_schedule: whether it has any schedule, on or off.
    """

    name: str
    id: str
    pool: str | None
    place: Place
    schedules: int
    one_at_a_time: bool
    model: str | None
    has_schedule: bool = False


def declared(workspace: Path) -> list[str]:
    """The deployments that `prefect.yaml` names, as `flow/deployment`; a flow has its function's name.

    Without that file there are none: a worker may serve others.

    Raises:
        StackError: the file is damaged.
    """
    path = workspace / FILE
    if not path.is_file():
        return []
    try:
        items = parse_yaml(path.read_bytes())["deployments"]
        return [f"{item['entrypoint'].rpartition(':')[2]}/{item['name']}" for item in items]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StackError(f"{path}: damaged ({' '.join(str(error).split())}); restore it from git") from None


def names_of_stages(workspace: Path) -> list[str]:
    """What a run can be asked for: the groups of `dvc.yaml`, and the stages of those that have several.

    Raises:
        PipelineError: DVC can't read the pipeline.
    """
    stages = read_stages(workspace)
    return list(dict.fromkeys([*(stage.group for stage in stages), *(stage.name for stage in stages)]))


def placed_by_default(workspace: Path) -> list[str]:
    """What deployments of `prefect.yaml` place, be it a stage of `dvc.yaml` or not.

    Raises:
        StackError: the file is damaged.
    """
    if not declared(workspace):
        return []
    found = parse_yaml((workspace / FILE).read_bytes())["deployments"]
    given = [item["parameters"] for item in found if isinstance(item.get("parameters"), dict)]
    placed = [text for parameters in given for text in parameters.get("placement") or []]
    return list(dict.fromkeys(str(text).partition("=")[0] for text in placed))


def deployed(environment: Environment) -> list[Deployed]:
    """The deployments of `prefect.yaml` that the server has, whosever they are.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    answers = [
        (name, ask(environment, f"/deployments/name/{name}", missing=True))
        for name in declared(environment.workspace)
    ]
    return [
        Deployed(
            name,
            answer["id"],
            answer.get("work_pool_name"),
            _place(environment, answer),
            sum(bool(schedule["active"]) for schedule in answer.get("schedules") or []),
            answer.get("global_concurrency_limit") is not None,
            _tagged(answer, MODEL_TAG),
            bool(answer.get("schedules")),
        )
        for name, answer in answers
        if answer is not None
    ]


def foreign(environment: Environment, found: Sequence[Deployed]) -> dict[Place, list[str]]:
    """Those that belong to other clones: their names by clone."""
    names: dict[Place, list[str]] = {}
    for one in found:
        if not one.place.is_of(environment):
            names.setdefault(one.place, []).append(one.name)
    return names


def refuse_foreign(environment: Environment, found: Sequence[Deployed]) -> None:
    """Keeps a clone from taking the deployments of another without a word.

    Raises:
        StackError: another clone has them.
    """
    if others := foreign(environment, found):
        raise StackError(
            f"{_sentence(others)}; nothing was deployed: take them over with `erv run --deploy --replace`, or"
            " leave them there and use `erv run` here"
        )


def note_for_worker(environment: Environment) -> str | None:
    """What to know before a worker starts: whose runs it will not get; None if they are this clone's.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    others = foreign(environment, deployed(environment))
    if not others:
        return None
    return (
        f"{_sentence(others)}; a worker here gets none of their new runs:"
        " `erv run --deploy --replace` has them run here"
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `one`, `one and two`, `one, two and three`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _sentence(others: Mapping[Place, Sequence[str]]) -> str:
    return ", and ".join(
        f"{listed(names)} on this Prefect server {'run' if len(names) > 1 else 'runs'} in {place}"
        for place, names in others.items()
    )


def _place(environment: Environment, deployment: Mapping[str, Any]) -> Place:
    steps = deployment.get("pull_steps") or []
    folders = [step[_FOLDER_STEP]["directory"] for step in steps if _FOLDER_STEP in step]
    folder = folders[-1] if folders and Path(folders[-1]).is_absolute() else None  # in earlier versions
    if folder is None and (name := deployment.get("work_pool_name")):
        folder = folder_of(read_pool(environment, name) or {})
    return Place(folder, _tagged(deployment, DEPLOYED_BY))


def _tagged(deployment: Mapping[str, Any], start: str) -> str | None:
    """What the first tag says that begins so."""
    tags: list[str] = deployment.get("tags") or []
    return next((tag.removeprefix(start) for tag in tags if tag.startswith(start)), None)
