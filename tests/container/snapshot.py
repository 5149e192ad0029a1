"""What the servers of a stack have, in a form that can be compared."""

from __future__ import annotations

import hashlib
from typing import Any

import boto3
import mlflow
from botocore.config import Config

from erv.environment import Environment
from tests.integration.prefect_api import ask


def store(environment: Environment, **changes: Any) -> Any:
    """A client of the object store; `changes` are other arguments of boto3's client, such as keys."""
    given = environment.variables()
    arguments = {
        "endpoint_url": given["ERV_S3_ENDPOINT"],
        "aws_access_key_id": given["ERV_S3_ACCESS_KEY"],
        "aws_secret_access_key": given["ERV_S3_SECRET_KEY"],
        "region_name": given["ERV_S3_REGION"],
        "config": Config(s3={"addressing_style": "path"}),
    }
    return boto3.client("s3", **{**arguments, **changes})


def objects(environment: Environment) -> dict[str, str]:
    """The hash of every version of every object, by bucket, key and version."""
    client, found = store(environment), {}
    for bucket in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for entry in page.get("Versions", []):
                version = entry.get("VersionId", "null")
                named = {} if version == "null" else {"VersionId": version}
                body = client.get_object(Bucket=bucket, Key=entry["Key"], **named)["Body"].read()
                found[f"{bucket}/{entry['Key']}@{version}"] = hashlib.sha256(body).hexdigest()
    return found


def tracking(environment: Environment) -> dict[str, Any]:
    """Every run of MLflow with its parameters, tags and metrics, and every version with its aliases.

    The variable `MLFLOW_TRACKING_TOKEN` must be set.
    """
    client = mlflow.MlflowClient(str(environment.mlflow_uri))
    found: dict[str, Any] = {}
    experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
    for run in client.search_runs(list(experiments), max_results=1000):
        histories = {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        found[f"run {run.info.run_id}"] = (
            experiments[run.info.experiment_id],
            run.info.status,
            run.data.params,
            run.data.tags,
            histories,
        )
    for model in client.search_registered_models():
        found[f"model {model.name}"] = dict(model.aliases)
        for version in client.search_model_versions(f"name='{model.name}'"):
            found[f"version {model.name}/{version.version}"] = (version.run_id, version.source, version.tags)
    return found


def orchestration(environment: Environment) -> dict[str, Any]:
    """Every flow run, its tasks and every deployment of Prefect."""
    found: dict[str, Any] = {}
    for kind in ("flow_runs", "task_runs", "deployments"):
        for entry in ask(environment, f"/{kind}/filter", {"limit": 200}):
            what = ("name", "state_type", "state_name", "start_time", "end_time", "parameters", "entrypoint")
            found[f"{kind} {entry['id']}"] = {name: entry.get(name) for name in what}
    return found
