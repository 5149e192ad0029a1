"""What a kubelet does with a pod, as far as a process here can have it: variables, folders, commands.

Prefect's Kubernetes worker is no dependency of ours, so its part is here, too: the template is filled in by
Prefect's own code, and the variables come together as that worker puts them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.workers.base import BaseJobConfiguration

from erv.environment import Environment
from erv.stack.launch import prefect_environment
from tests.support.paths import ROOT

REFERENCE = re.compile(r"\$\((\w+)\)")


class JobConfiguration(BaseJobConfiguration):
    """The part of the Kubernetes worker's configuration that we use."""

    namespace: str
    job_manifest: dict[str, Any]


async def _job(flow_run_id: str, pool: str) -> dict[str, Any]:
    async with get_client() as client:
        work_pool = await client.read_work_pool(pool)
        flow_run = await client.read_flow_run(UUID(flow_run_id))
        values = flow_run.job_variables or {}
        found = await JobConfiguration.from_template_and_values(
            work_pool.base_job_template, values, client=client
        )
        found.prepare_for_flow_run(flow_run, work_pool=work_pool, worker_name="a worker")
    container = found.job_manifest["spec"]["template"]["spec"]["containers"][0]
    own = [{"name": name, "value": value} for name, value in found.env.items()]
    container["env"] = own + [item for item in container["env"] if item["name"] not in found.env]
    return found.job_manifest


def job_for(flow_run_id: str, pool: str, environment: Environment) -> dict[str, Any]:
    """The job that a worker makes for a flow run, in a process with the variables of one."""
    command = [sys.executable, "-m", "tests.support.pods", flow_run_id, pool]
    made = subprocess.run(
        command, env=prefect_environment(environment), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    job: dict[str, Any] = json.loads(made.stdout)
    return job


def variables_of(
    container: Mapping[str, Any], settings: Mapping[str, str], secret: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a container; one that is missing in `settings` or `secret` is a KeyError."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        assert source == {"configMapRef": {"name": "erv"}}
        found |= settings
    for item in container.get("env", []):
        match item.get("valueFrom"):
            case None:
                found[item["name"]] = REFERENCE.sub(lambda match: found[match[1]], item["value"])
            case {"secretKeyRef": {"name": "erv", "key": key}}:
                found[item["name"]] = secret[key]
            case {"configMapKeyRef": {"name": "erv", "key": key}}:
                found[item["name"]] = settings[key]
            case {"fieldRef": {"fieldPath": "metadata.namespace"}}:
                found[item["name"]] = "erv"
            case other:
                raise AssertionError(other)
    return found


def start_container(
    container: Mapping[str, Any],
    image: Path,
    folders: Mapping[str, Path],
    settings: Mapping[str, str],
    secret: Mapping[str, str],
    log: Path,
) -> subprocess.Popen[bytes]:
    """Starts a container's command as a process.

    Args:
        container: of a pod.
        image: a folder in the place of `/workspace` of the image.
        folders: one in the place of each path that is mounted.
        settings: of the ConfigMap `erv`.
        secret: of the Secret `erv`.
        log: takes its output.
    """
    mounted = {item["mountPath"]: folders[item["name"]] for item in container["volumeMounts"]}
    places = {"/workspace": image, **mounted}

    longest_first = "|".join(sorted(map(re.escape, places), key=len, reverse=True))
    path = re.compile(rf"(?:^|(?<=[=:]))({longest_first})(?=/|:|$)")

    def placed(text: str) -> str:
        return path.sub(lambda match: str(places[match[1]]), text)

    given = variables_of(container, settings, secret)
    environment = {name: placed(value) for name, value in given.items()}
    # What the image itself has: its Python, and an editable installation of /workspace.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    source = str(places["/workspace"] / "src")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), source]))
    words: Sequence[str] = [*container.get("command", []), *container.get("args", [])]
    with log.open("ab") as stream:
        return subprocess.Popen(
            [placed(word) for word in words],
            cwd=placed(container.get("workingDir", "/workspace")),
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_job(*sys.argv[1:]))))
