"""How the page of our experiment opens in MLflow: with its runs, a description, columns and charts.

MLflow keeps a view that is shared by a link as a tag of the experiment, and the link names it. Ours is such
a view. What someone has changed on the page themselves stays.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from erv.environment import Environment
from erv.tracking import lock_entries
from erv.tracking.description import (
    CHAMPION,
    CHANGED_TAG,
    EXPERIMENT,
    FLOW,
    FOLD,
    KIND_TAG,
    LAST,
    NOTE_TAG,
    SEED,
)

logger = logging.getLogger(__name__)

VIEW = "erv"  # the key of the view, in links
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# The page of an experiment with traces opens as one of chat applications otherwise, without its runs.
ITS_KIND_TAG, ITS_KIND = "mlflow.experimentKind", "custom_model_development"

METRICS = ("WAR", "UAR", "EEA", "EPC", "FCR", "inconsistency")
CURVES = (
    "reward",
    "reward/accuracy",
    "reward/explanation",
    "kl",
    "completion_length",
    "loss",
    "validation_loss",
)

DESCRIPTION = f"""One run per run of the flow or experiment of DVC; those of its stages are below it.

- A run is named by the policy that it makes and by the parameters in which it differs from the champion.
  Its description lists all of them.
- `{{policy}}/overall/EPC` and the like are metrics on test clips of all data sets together.
- Curves of training are in the runs of the stages `sft` and `grpo@NAME`, under the same names in all of them.
- `tags.{KIND_TAG} = '{FLOW}'` finds runs of the flow, `'{EXPERIMENT}'` those of DVC;
  `tags.erv.candidate`, `tags.erv.fold`, `tags.erv.seed` and `tags.erv.git_commit` narrow them down.
"""


def set_up_page(environment: Environment, candidate: str) -> None:
    """Describes the experiment and stores its view; an outage of MLflow is only reported.

    Args:
        environment: where MLflow is; nothing happens without one, or before its first run.
        candidate: the policy whose metrics the page shows.
    """
    if environment.mlflow_uri is None:
        return
    server = lock_entries.server_of(environment)
    try:
        number = server.experiment_id(environment.mlflow_experiment)
        if number is None:
            return
        present = server.experiment_tags(number)
        wanted = {
            NOTE_TAG: DESCRIPTION,
            ITS_KIND_TAG: ITS_KIND,
            VIEW_TAG: json.dumps(view(candidate)),
        }
        for tag, value in wanted.items():
            # Our own view follows the candidate; people keep theirs under other keys.
            if tag not in present or (tag == VIEW_TAG and present[tag] != value):
                server.set_experiment_tag(number, tag, value)
    except OSError as error:
        logger.warning("the experiment's page in MLflow is not set up yet: %s", error)


def address(base: str, number: str) -> str:
    """The page of an experiment with our columns and charts.

    Args:
        base: of MLflow, without a slash at its end.
        number: of the experiment.
    """
    return f"{base}/#/experiments/{number}/runs?viewStateShareKey={VIEW}"


def view(candidate: str) -> dict[str, Any]:
    """Columns, order and charts of the page, in the form in which MLflow's own page shares them."""
    metrics = [f"{candidate}/overall/{metric}" for metric in METRICS]
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": [
            *_columns("attributes", ("Duration", "User")),
            *_columns("metrics", metrics),
            *_columns("params", (SEED, FOLD)),
            *_columns("tags", (CHANGED_TAG + CHAMPION, CHANGED_TAG + LAST, "erv.git_dirty")),
        ],
        "compareRunSections": [_section("policies"), _section("training")],
        "compareRunCharts": [
            *(_chart("BAR", "policies", metric) for metric in metrics),
            *(_chart("LINE", "training", curve) for curve in CURVES),
        ],
        "hideEmptyCharts": True,
    }


def _columns(kind: str, names: Sequence[str]) -> list[str]:
    return [f"{kind}.`{name}`" for name in names]


def _section(name: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": True, "isReordered": False, "isGenerated": False}


def _chart(kind: str, section: str, metric: str) -> dict[str, Any]:
    chart = {
        "type": kind,
        "uuid": f"{section}-{metric}",
        "metricSectionId": section,
        "metricKey": metric,
        "displayName": metric,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
    }
    if kind == "LINE":
        chart |= {
            "selectedMetricKeys": [metric],
            "xAxisKey": "step",
            "scaleType": "linear",
            "lineSmoothness": 0,
        }
    return chart
