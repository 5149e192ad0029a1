"""How the page of our experiment opens in MLflow: with its runs, a description, columns and charts.

MLflow keeps a view that is shared by a link as a tag of the experiment, and the link names it. Ours are such
views: one of the runs, one of the curves of GRPO. What someone has changed on the page themselves
stays; a description that nobody has changed since an earlier version wrote it follows ours.
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
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, STARTED_BY_TAG

logger = logging.getLogger(__name__)

VIEW, CURVES_VIEW = "erv", "erv-curves"  # the keys of the views, in links
VIEW_TAG, CURVES_TAG = (f"mlflow.sharedViewState.{key}" for key in (VIEW, CURVES_VIEW))
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
_ABOUT_CURVES = """\
- [Curves of GRPO]({curves}) are those of the runs of the stage `grpo`. The cold start's are in the runs of
  `sft`, under the same names: there, change the filter to `sft`."""
# As earlier versions had it: what they wrote is told from what somebody has changed by being the same text.
_ABOUT_CURVES_BEFORE = (
    "- Curves of training are in the runs of the stages `sft` and `grpo@NAME`, under the same names in all of"
    " them.",
    "- [Curves of training]({curves}) are in the runs of the stages `sft` and `grpo@NAME`, under the same"
    " names\n  in all of them.",
)


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
        curves = curves_address(number)
        wanted = {
            NOTE_TAG: description(curves),
            ITS_KIND_TAG: ITS_KIND,
            VIEW_TAG: json.dumps(view(candidate)),
            CURVES_TAG: json.dumps(curves_view()),
        }
        # Our own views follow the candidate; people keep theirs under other keys.
        ours = {tag for tag in (VIEW_TAG, CURVES_TAG) if present.get(tag) != wanted[tag]}
        if present.get(NOTE_TAG) in [description(curves, about) for about in _ABOUT_CURVES_BEFORE]:
            ours.add(NOTE_TAG)
        for tag, value in wanted.items():
            if tag not in present or tag in ours:
                server.set_experiment_tag(number, tag, value)
    except OSError as error:
        logger.warning("the experiment's page in MLflow is not set up yet: %s", error)


def description(curves: str, about_curves: str = _ABOUT_CURVES) -> str:
    """What the page says above its runs, in Markdown.

    Args:
        curves: address of the curves of GRPO.
        about_curves: what it says about curves, with a place for the address.
    """
    return f"""One run per run of the flow or experiment of DVC; those of its stages are below it.

- A run is named by the policy that it makes and by the parameters in which it differs from the champion.
  Its description lists all of them.
- `{{policy}}/overall/EPC` and the like are metrics on test clips of all data sets together.
{about_curves.format(curves=curves)}
- `tags.{KIND_TAG} = '{FLOW}'` finds runs of the flow, `'{EXPERIMENT}'` those of DVC;
  `tags.erv.candidate`, `tags.erv.fold`, `tags.erv.seed` and `tags.erv.git_commit` narrow them down.
"""


def address(base: str, number: str) -> str:
    """The page of an experiment with our columns and charts.

    Args:
        base: of MLflow, without a slash at its end.
        number: of the experiment.
    """
    return f"{base}/#/experiments/{number}/runs?viewStateShareKey={VIEW}"


def curves_address(number: str) -> str:
    """The curves of GRPO of an experiment's runs, as a link on its own page."""
    return f"#/experiments/{number}/runs?viewStateShareKey={CURVES_VIEW}&compareRunsMode=CHART"


def view(candidate: str) -> dict[str, Any]:
    """Columns, order and charts of the page, in the form in which MLflow's own page shares them."""
    metrics = [f"{candidate}/overall/{metric}" for metric in METRICS]
    columns = [
        *_columns("attributes", ("Duration", "User")),
        *_columns("metrics", metrics),
        *_columns("params", (SEED, FOLD)),
        *_columns("tags", (STARTED_BY_TAG, CHANGED_TAG + CHAMPION, CHANGED_TAG + LAST, DIRTY_TAG)),
    ]
    charts = [_chart("BAR", "test clips", metric) for metric in metrics]
    return _view("", "attributes.start_time", columns, "test clips", charts)


def curves_view() -> dict[str, Any]:
    """The same of the runs of grpo, which are below those of the flow."""
    columns = [
        *_columns("attributes", ("Duration", "User")),
        *_columns("params", (SEED, FOLD)),
        *_columns("tags", (STARTED_BY_TAG, COMMIT_TAG, DIRTY_TAG)),
    ]
    charts = [_chart("LINE", "training", curve) for curve in CURVES]
    # MLflow hides runs below that of their flow, and with them their curves, where they are sorted by time.
    return _view("tags.`erv.stage` = 'grpo'", "metrics.`reward`", columns, "training", charts)


def _view(
    search: str, order: str, columns: list[str], section: str, charts: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": columns,
        "compareRunSections": [_section(section)],
        "compareRunCharts": charts,
        # MLflow adds a section per group of metrics, and sorts all by name unless somebody has moved one.
        "isAccordionReordered": True,
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
