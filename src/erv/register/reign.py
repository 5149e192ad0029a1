"""The reign of champions: which version became champion when, by whom, how and why. Nothing is ever deleted.

MLflow keeps a few thousand characters per tag, so each reign is a tag of the version that began it, numbered
through all versions of the model; the model itself only has the order of their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from erv.register.versions import versions
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

TAG_PREFIX = "erv.reign."
ORDER_TAG = "erv.reigns"  # of the registered model: the numbers of its champions, one after another
_TAG_LIMIT = 4900  # longest tag value that every MLflow store accepts
How = Literal["gates", "promote", "rollback", "serving code", "elsewhere"]


@dataclass(frozen=True)
class Reign:
    """How a version became champion.

    Attributes:
        version: its number.
        since: UTC, to the second, ISO 8601; empty if the alias was set by other means than ours.
        by: who, as `user@host`.
        how: `gates`: it passed them all; `promote` or `rollback`: by hand; `serving code`: in place of a
            champion with the same bundle, for which other code answers; `elsewhere`: by other means.
        reason: as given by hand, or which version's place it took.
        forced: the gates that it did not pass, as sentences.
    """

    version: str
    since: str = ""
    by: str = ""
    how: How = "elsewhere"
    reason: str = ""
    forced: tuple[str, ...] = ()

    def text(self) -> str:
        """`version 3 since 2026-11-29T10:00:00Z, promote by ann@box: better on calls`."""
        if self.how == "elsewhere":
            return f"version {self.version}, by other means than erv"
        line = f"version {self.version} since {self.since}, {self.how} by {self.by}"
        if self.reason:
            line += f": {self.reason}"
        return "\n".join([line, *(f"  forced past {gate}" for gate in self.forced)])


def now() -> str:
    """The present time as reigns note it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def note(client: MlflowClient, name: str, reign: Reign) -> None:
    """Adds a reign, unless the last one is of the same version: a change that is repeated counts once.

    The caller has the registry's turn.
    """
    order = _order(repeated(lambda: client.get_registered_model(name)))
    if order[-1:] == [reign.version]:
        return
    content = {key: value for key, value in asdict(reign).items() if key != "version" and value}
    text, tag = tag_text(content), f"{TAG_PREFIX}{len(order):05d}"
    repeated(lambda: client.set_model_version_tag(name, reign.version, tag, text))
    extended = ",".join([*order, reign.version])
    repeated(lambda: client.set_registered_model_tag(name, ORDER_TAG, extended))


def tag_text(content: Mapping[str, Any]) -> str:
    """A reign as JSON that fits into a tag.

    Args:
        content: its `reason`, `forced` and the rest. What is too long loses the last gates, then the end of
            the reason, and says so.
    """
    text = json.dumps(content, ensure_ascii=False)
    gates = list(content.get("forced", ()))
    for kept in range(len(gates) - 1, -1, -1):
        if len(text) <= _TAG_LIMIT:
            return text
        more = f"and {len(gates) - kept} more"
        text = json.dumps({**content, "forced": [*gates[:kept], more]}, ensure_ascii=False)
    if len(text) > _TAG_LIMIT:
        # JSON writes some characters with six.
        reason = f"{str(content.get('reason', ''))[: _TAG_LIMIT // 8]}…"
        forced = [f"{len(gates)} gates"] if gates else []
        text = json.dumps({**content, "reason": reason, "forced": forced}, ensure_ascii=False)
    return text


def reigns(client: MlflowClient, name: str) -> list[Reign]:
    """All reigns, the first one first; that of a version that was deleted has no more than its number."""
    noted = {
        (str(version.version), int(tag.removeprefix(TAG_PREFIX))): json.loads(text)
        for version in repeated(lambda: versions(client, name))
        for tag, text in version.tags.items()
        if tag.startswith(TAG_PREFIX)
    }
    order = _order(repeated(lambda: client.get_registered_model(name)))
    return [_reign(number, noted.get((number, place), {})) for place, number in enumerate(order)]


def hand_over(client: MlflowClient, name: str, copy: str, number: str) -> None:
    """The reigns of a version that is about to be deleted go to another."""
    model = repeated(lambda: client.get_registered_model(name))
    order = _order(model)
    if copy not in order:
        return
    for tag, text in repeated(lambda: client.get_model_version(name, copy)).tags.items():
        if tag.startswith(TAG_PREFIX):
            repeated(lambda tag=tag, text=text: client.set_model_version_tag(name, number, tag, text))  # type: ignore[misc]
    renamed = ",".join(number if entry == copy else entry for entry in order)
    repeated(lambda: client.set_registered_model_tag(name, ORDER_TAG, renamed))


def _order(model: RegisteredModel) -> list[str]:
    return [number for number in model.tags.get(ORDER_TAG, "").split(",") if number]


def _reign(number: str, content: dict[str, Any]) -> Reign:
    return Reign(number, **{**content, "forced": tuple(content.get("forced", ()))})
