"""What a coordinator asks a worker for, as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from erv.errors import DataError

# Files that travel with the request, not with its commit: a run may write the one, and set the other.
SENT_APART = ("dvc.lock", "params.yaml")
VERSION = 1
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_STAGE = re.compile(r"\w[\w-]*(@[\w.-]+)?")


class RequestError(DataError):
    """A request that this worker doesn't understand."""


@dataclass(frozen=True)
class Request:
    """One stage at one commit.

    Attributes:
        stage: as `dvc.yaml` names it.
        upstream: the stages whose outputs it reads.
        commit: its id.
        inputs: from `erv.remote.key.present_inputs`.
        files: `dvc.lock` and `params.yaml` of the coordinator, by path.
        patch: uncommitted changes; None if there are none.
        patch_id: the hash of the patch.
        force: run even if DVC knows the result.
        bucket: of DVC's remote.
        experiment: of MLflow.
        variables: for the stage: which flow run and which run of MLflow it belongs to.
        asked_by: who and where, for people.
        version: of this format.
    """

    stage: str
    upstream: tuple[str, ...]
    commit: str
    inputs: str
    files: Mapping[str, str]
    bucket: str
    experiment: str
    asked_by: str
    patch: str | None = None
    patch_id: str | None = None
    force: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def document(self) -> dict[str, Any]:
        """The request as JSON."""
        return asdict(self)


_ALLOWED_VARIABLES = {"ERV_FLOW_RUN_ID", "ERV_PARENT_RUN_ID"}


def read_request(document: Mapping[str, Any]) -> Request:
    """The request in a document.

    Raises:
        RequestError: it is of another version of erv, or damaged.
    """
    if document.get("version") != VERSION:
        raise RequestError(
            f"the request has version {document.get('version')}, this worker reads {VERSION}: update the"
            " older of the two clones (`git pull`, `make install`) and start its worker again"
        )
    names = {item.name for item in fields(Request)}
    try:
        request = Request(**{name: value for name, value in document.items() if name in names})
        good = (
            _STAGE.fullmatch(request.stage)
            and _COMMIT.fullmatch(request.commit)
            and all(_STAGE.fullmatch(name) for name in request.upstream)
            and set(request.files) <= set(SENT_APART)
            and set(request.variables) <= _ALLOWED_VARIABLES
        )
    except (TypeError, AttributeError):
        good = False
    if not good:
        raise RequestError("the request is damaged; run `erv run` again")
    return request
