"""The base job template of a work pool whose stages run as Kubernetes jobs: a file, checked first.

Prefect takes any mapping, and says only when the first stage is to run that a pod can't be made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import StackError
from erv.files import parse_yaml

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SETTINGS = "PREFECT_INTEGRATIONS_KUBERNETES_"
_EXAMPLE = "see infra/kubernetes/stack/job-template.yaml"


def read_job_template(path: Path) -> dict[str, Any]:
    """A base job template: what may be set (`variables`), and what is made of it (`job_configuration`).

    Args:
        path: YAML or JSON.

    Raises:
        StackError: there is no such file, it is no such template, or it uses variables that it doesn't have.
    """
    try:
        found = parse_yaml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StackError(f"{path}: can't be read as a job template ({error}); {_EXAMPLE}") from error
    if not isinstance(found, dict) or set(found) != {"variables", "job_configuration"}:
        raise StackError(
            f"{path}: a job template has the two parts `variables` and `job_configuration`; {_EXAMPLE}"
        )
    properties = found["variables"].get("properties") if isinstance(found["variables"], dict) else None
    if not isinstance(properties, dict):
        raise StackError(f"{path}: `variables` needs `properties`, a JSON schema by name; {_EXAMPLE}")
    manifest = found["job_configuration"]
    if not isinstance(manifest, dict) or not isinstance(manifest.get("job_manifest"), dict):
        raise StackError(f"{path}: `job_configuration` needs `job_manifest`, a Kubernetes Job; {_EXAMPLE}")
    try:
        worker_settings(found)
    except _WrongTypeError as error:
        raise StackError(f"{path}: {error}; {_EXAMPLE}") from None
    used = set(_PLACEHOLDER.findall(json.dumps(manifest)))
    if unknown := sorted(used - set(properties)):
        raise StackError(
            f"{path}: uses {', '.join(unknown)}, which `variables` doesn't have; it has"
            f" {', '.join(sorted(properties))}"
        )
    return found


def worker_settings(template: Mapping[str, Any]) -> dict[str, str]:
    """What Prefect's Kubernetes worker must know of a template, as variables for its process.

    It looks at the template's namespace alone, for which it needs rights there only; and it has the jobs name
    the secret with Prefect's key, if the template does, instead of writing the key into each of them.

    Args:
        template: from `read_job_template`.
    """
    found: dict[str, str] = {}
    properties, job = template["variables"]["properties"], template["job_configuration"]["job_manifest"]
    if namespace := _mapping(properties, "namespace", "variables").get("default"):
        found[f"{_SETTINGS}OBSERVER_NAMESPACES"] = str(namespace)
    pod = _mapping(_mapping(_mapping(job, "spec"), "template"), "spec")
    for container in _list(pod, "containers"):
        # Prefect takes a mapping of texts there, too, which names no secret.
        for item in [] if isinstance(container.get("env"), dict) else _list(container, "env"):
            secret = _mapping(_mapping(item, "valueFrom"), "secretKeyRef")
            if item.get("name") == "ERV_PREFECT_AUTH_STRING" and secret:
                if not {"name", "key"} <= set(secret):
                    raise _WrongTypeError("`secretKeyRef` of ERV_PREFECT_AUTH_STRING needs `name` and `key`")
                found[f"{_SETTINGS}WORKER_API_AUTH_STRING_SECRET_NAME"] = str(secret["name"])
                found[f"{_SETTINGS}WORKER_API_AUTH_STRING_SECRET_KEY"] = str(secret["key"])
    return found


class _WrongTypeError(Exception):
    """Something in a template isn't of the type that Kubernetes wants."""


def _mapping(holder: Mapping[str, Any], name: str, part: str = "job_manifest") -> Mapping[str, Any]:
    """A mapping; an empty one if it isn't given, or if each run gives it."""
    found = holder.get(name)
    if found is None or _is_placeholder(found):
        return {}
    if not isinstance(found, dict):
        raise _WrongTypeError(f"`{name}` in `{part}` is {found!r:.60}; expected a mapping")
    return found


def _list(holder: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """A list of mappings, in the same way."""
    found = holder.get(name)
    if found is None or _is_placeholder(found):
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _WrongTypeError(f"`{name}` in `job_manifest` is {found!r:.60}; expected a list of mappings")
    return found


def _is_placeholder(found: object) -> bool:
    return isinstance(found, str) and _PLACEHOLDER.fullmatch(found) is not None
