"""The run that stands for an experiment of DVC and contains the runs of its stages.

`dvc exp run` starts stages itself, without a flow. What they have in common is the name of the experiment and
its baseline, which DVC hands to them as variables, and the commit in which DVC keeps what it applies to the
baseline, with who and when. A name can be used again; that commit can't.
"""

from __future__ import annotations

import json
import logging
import os

from erv.environment import Environment
from erv.files import sha256_of, sha256_of_text
from erv.parameters import PARAMETERS, parse, read
from erv.tracking.delivery import KEY_TAG, Delivery, Outage
from erv.tracking.description import EXPERIMENT, KIND_TAG, describe
from erv.tracking.experiment_page import set_up_page
from erv.tracking.header import RunHeader
from erv.tracking.lock_entries import server_of
from erv.tracking.origin import git, user
from erv.tracking.outbox import now_ms
from erv.tracking.rest import Run

logger = logging.getLogger(__name__)

NAME_TAG, BASELINE_TAG = "erv.dvc_experiment", "erv.dvc_baseline"
NAME_VARIABLE, BASELINE_VARIABLE = "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"
_APPLIED = "refs/exps/exec/EXEC_MERGE"  # DVC sets it for as long as an experiment runs in a folder


def experiment_tags() -> dict[str, str]:
    """Which experiment of DVC this process belongs to; nothing outside of one."""
    named = {NAME_TAG: os.environ.get(NAME_VARIABLE), BASELINE_TAG: os.environ.get(BASELINE_VARIABLE)}
    return {tag: value for tag, value in named.items() if value} if named[NAME_TAG] else {}


def experiment_run(environment: Environment, origin: dict[str, str]) -> str | None:
    """The run of this process's experiment, opened by the first stage that runs in it.

    DVC tells nobody when an experiment ends, so its run ends with each stage and goes on with the next. If a
    stage fails or is killed, it stays failed.

    Args:
        environment: where MLflow is.
        origin: tags that say which commit runs.

    Returns:
        Its id; None outside of experiments, without MLflow, or while it can't be reached.
    """
    tags = experiment_tags()
    if not tags or environment.mlflow_uri is None:
        return None
    try:
        return _open(environment, {**tags, **origin})
    except (OSError, Outage) as error:
        logger.warning("the run of experiment %s can't be opened now: %s", tags[NAME_TAG], error)
        return None


def _open(environment: Environment, tags: dict[str, str]) -> str:
    # The stages of one experiment run one after another, so none opens it while another looks for it.
    content = parse(read(environment.workspace))
    key = _key(environment, tags)
    found = _by_key(environment, key)
    delivery = Delivery(environment)
    if found is not None and found.info.status == "FINISHED":
        server_of(environment).resume_run(found.info.run_id)
    if found is not None and found.data.params:
        return found.info.run_id
    register = {name: str(content.get(f"register.{name}", "")) for name in ("policy", "model_name")}
    described = describe(
        environment, content, candidate=register["policy"], model=register["model_name"], targets=None
    )
    if found is None:
        header = RunHeader(
            key=key,
            address="experiment",
            started=now_ms(),
            tags={KIND_TAG: EXPERIMENT, **described.tags, **tags},
            name=f"{described.name} · {tags[NAME_TAG]}",
        )
        run_id = delivery.open(header)
    else:  # MLflow was lost before it had the parameters
        run_id = found.info.run_id
    for _ in delivery.deliver(run_id, [{"kind": "params", "values": described.parameters}]):
        pass
    set_up_page(environment, register["policy"])
    return run_id


def _key(environment: Environment, tags: dict[str, str]) -> str:
    """Tells one `dvc exp run` from all others, also from one of the same name, baseline and values."""
    applied = (git(environment.workspace, "rev-parse", "--verify", "--quiet", _APPLIED) or "").strip()
    values = applied or sha256_of(environment.workspace / PARAMETERS)
    return sha256_of_text(json.dumps([tags[NAME_TAG], tags.get(BASELINE_TAG), user(), values]))[:32]


def _by_key(environment: Environment, key: str) -> Run | None:
    server = server_of(environment)
    number = server.experiment_id(environment.mlflow_experiment)
    if number is None:
        return None
    found = server.search_runs(number, f"tags.`{KEY_TAG}` = '{key}'")
    return found[0] if found else None
