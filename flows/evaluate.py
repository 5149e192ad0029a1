"""The evaluate flow: any model against the test sets that the clone of the worker has now.

`prefect deployment run evaluate/any -p model=4` starts it through a worker, `erv evaluate` does the same in
the terminal. The figures go to MLflow as a run of their own; `dvc.lock`, the registry and its gates stay as
they are.
"""

from __future__ import annotations

import functools
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed

from erv.environment import isolate, load_environment
from erv.errors import ErvError
from erv.libraries import require_locked
from erv.lineage.resolved import named_model
from erv.pipeline import StageCancelledError
from erv.register import evaluation
from erv.settings import load_settings
from erv.stack.one_origin import check_servers
from flows.artifacts import prefect_may_be_away
from flows.cancellation import Cancellation
from flows.clone import refuse_foreign_code
from flows.console import leave_out_tracebacks_of_ended_runs
from flows.form import Model
from flows.origin import started_by


@flow(name="evaluate", persist_result=False, retries=0)
def evaluate(model: Model = "champion") -> Any:
    """Measures a model on the present test sets, as the candidate is: WAR, UAR, EEA, EPC, FCR.

    Args:
        model: a version of the registry by its number or alias (`4`, `champion`, `NAME@ALIAS`), or a folder
            on the machine of the worker: what `erv export` wrote, a bundle, or a policy in the format of the
            Hub.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    environment = load_environment()
    isolate(environment)
    leave_out_tracebacks_of_ended_runs()
    try:
        refuse_foreign_code()
        check_servers(environment, ("S3", "MLflow"))
        settings = load_settings(environment.workspace / "params.yaml")
        require_locked(environment.workspace, settings.runtime.python)
        subject = named_model(str(model), environment)
        get_run_logger().info("evaluating %s", subject.title)
        with Cancellation(context.flow_run.id) as cancellation:
            found = evaluation.evaluate(
                subject,
                environment,
                settings,
                by=started_by(),
                cancelled=cancellation.asked,
                say=functools.partial(get_run_logger().info, "%s"),
            )
    except StageCancelledError as error:
        return Cancelled(message=str(error))
    except ErvError as error:
        return Failed(message=environment.mask(str(error)))
    text = "\n".join(found.lines())
    get_run_logger().info("%s", text)
    with prefect_may_be_away("the figures"):
        create_markdown_artifact(key="evaluation", markdown=text, description=f"Figures of {subject.title}")
    return found.run_id
