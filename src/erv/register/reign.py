"""The reign of champions: which version became champion when, by whom, how and why. Nothing is ever deleted.

Each reign is a tag of the registered model, so it stays when its version is deleted. MLflow keeps a few
thousand characters per tag.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from erv.register.verdict import CHAMPION, tells_a_verdict
from erv.register.versions import CODE_COMMIT_TAG, CODE_TAG, HASH_TAG, versions
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

TAG_PREFIX = "erv.reign."  # then its place among all reigns
_TAG_LIMIT = 4900  # longest tag value that every MLflow store accepts
UNNOTED = "by other means than erv, or by a command that was interrupted"
NONE = "none"  # bundle or code of a version that has none, as one that erv did not register
How = Literal["gates", "promote", "rollback", "serving code", "elsewhere"]


@dataclass(frozen=True)
class Reign:
    """How a version became champion.

    Attributes:
        version: its number.
        since: UTC, to the second, ISO 8601; empty if nobody noted it.
        by: who, as `Ann Lee (ann@box)` (`erv.tracking.origin.who`).
        how: `gates`: it passed them all; `promote` or `rollback`: by hand; `serving code`: in place of a
            champion with the same bundle, for which other code answers; `elsewhere`: nobody noted it.
        reason: as given by hand, or which version's place it took.
        forced: the gates that it did not pass, or why it has none, as sentences.
        bundle: hash of its bundle; empty if it was deleted before that was noted.
        code: digest of the code that answers for it; empty likewise.
        pending: whether it was noted before it began. If it never began, it counts as not there.
        deleted: whether the version is gone by now; not part of what is kept.
        commit: a commit that has the code which the version answers with, from the version; empty if none is
            known. Not part of what is kept either.
    """

    version: str
    since: str = ""
    by: str = ""
    how: How = "elsewhere"
    reason: str = ""
    forced: tuple[str, ...] = ()
    bundle: str = ""
    code: str = ""
    pending: bool = False
    deleted: bool = False
    commit: str = ""

    def may_be_of(self, bundle: str, code: str | None = None) -> bool:
        """Whether its version had a bundle, or may have had it, as nothing says which it had.

        Args:
            bundle: hash of the bundle.
            code: digest of the code that answers for it; by default, any code counts.
        """
        return self.bundle in ("", bundle) and (code is None or self.code in ("", code))

    def origin(self) -> str:
        """`since 2026-11-29T10:00:00Z, promote by ann@box`."""
        return UNNOTED if self.how == "elsewhere" else f"since {self.since}, {self.how} by {self.by}"

    def brief(self) -> str:
        """`version 3, since 2026-11-29T10:00:00Z, promote by ann@box`."""
        return f"version {self.version}, {self.origin()}"

    def text(self, width: int | None = None) -> str:
        """`version 3 since 2026-11-29T10:00:00Z, promote by Ann (ann@box): better on calls`, then the gates.

        Args:
            width: columns to fill; None leaves long lines as they are.
        """
        name = f"version {self.version}" + (", which was deleted," if self.deleted else "")
        if self.how == "elsewhere":
            return _filled(f"{name.rstrip(',')}, {UNNOTED}", "", width)
        line = f"{name} {self.origin()}" + (f": {self.reason}" if self.reason else "")
        lines = [_filled(line, "", width)]
        if self.commit:
            lines.append(f"  answers with the code of git commit {self.commit}")
        if gates := tuple(dict.fromkeys(self.forced)):
            lines.append(f"  {overridden(gates)}:")
            lines += [_filled(gate, "    ", width) for gate in gates]
        return "\n".join(lines)


def overridden(sentences: Sequence[str]) -> str:
    """`2 gates overridden`; `1 obstacle overridden` where not all are verdicts: a version may have none."""
    word = "gate" if all(map(tells_a_verdict, sentences)) else "obstacle"
    return f"{len(sentences)} {word}{'' if len(sentences) == 1 else 's'} overridden"


def _filled(text: str, indent: str, width: int | None) -> str:
    """A line, broken where it is longer than the width; what follows is indented further."""
    if width is None:
        return indent + text
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def now() -> str:
    """The present time as reigns note it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def note(client: MlflowClient, name: str, new: Reign, before: str | None) -> None:
    """Adds a reign, and one before it if the champion was changed by other means since the last.

    A change that is repeated after an interruption counts once: if the alias was set first, as the version is
    champion already, and if it is set last, as the reign before is `pending` and never began. The caller has
    the registry's turn.

    Args:
        client: of the registry.
        name: of the registered model.
        new: the reign that begins.
        before: the version that was champion before this change, or None.
    """
    model = repeated(lambda: client.get_registered_model(name))
    noted = _begun(model, before)  # the alias may be the new version's by now
    last = _last(noted)
    if before == last == new.version:
        return
    missed = [] if before in (None, last, new.version) else [Reign(str(before))]
    first = 1 + max((int(tag.removeprefix(TAG_PREFIX)) for tag in noted), default=-1)
    there = _tags_of_versions(client, name)
    for place, reign in enumerate([*missed, new], first):
        _write(client, name, f"{TAG_PREFIX}{place:05d}", _identified(reign, there))


def complete(client: MlflowClient, name: str) -> None:
    """Adds to the notes what they lack: that a reign has begun, and what an older erv did not keep.

    Bundle and code can be looked up only as long as the version exists. The caller has the registry's turn.
    """
    there = _tags_of_versions(client, name)
    for tag, reign in _noted(repeated(lambda: client.get_registered_model(name))).items():
        whole = replace(_identified(reign, there), pending=False)
        if whole != reign:
            _write(client, name, tag, whole)


def _tags_of_versions(client: MlflowClient, name: str) -> dict[str, Mapping[str, str]]:
    """The tags of the versions that exist, by number."""
    return {str(version.version): version.tags for version in repeated(lambda: versions(client, name))}


def _identified(reign: Reign, there: Mapping[str, Mapping[str, str]]) -> Reign:
    """A reign with bundle and code of its version, as far as that still exists."""
    tags = there.get(reign.version)
    if tags is None:
        return reign
    bundle, code = (reign.bundle or tags.get(HASH_TAG, NONE)), (reign.code or tags.get(CODE_TAG, NONE))
    return replace(reign, bundle=bundle, code=code)


def _write(client: MlflowClient, name: str, tag: str, reign: Reign) -> None:
    text = tag_text({key: value for key, value in asdict(reign).items() if value})
    repeated(lambda: client.set_registered_model_tag(name, tag, text))


def tag_text(content: Mapping[str, Any]) -> str:
    """A reign as JSON that fits into a tag.

    Args:
        content: its `version`, `reason`, `forced` and the rest. What is too long loses the last gates, then
            the end of the reason, and says so.
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
    """All reigns, the first one first; the present champion too, if nobody noted it."""
    model = repeated(lambda: client.get_registered_model(name))
    found, present = list(_noted(model).values()), present_reign(model)
    if present is not None and present not in found[-1:]:
        found.append(present)
    there = _tags_of_versions(client, name)
    return [
        replace(
            _identified(reign, there),
            deleted=reign.version not in there,
            commit=there.get(reign.version, {}).get(CODE_COMMIT_TAG, ""),
        )
        for reign in found
    ]


def present_reign(model: RegisteredModel) -> Reign | None:
    """That of the present champion, which says little if nobody noted it; None without a champion."""
    present, noted = model.aliases.get(CHAMPION), list(_noted(model).values())
    if present is None:
        return None
    return noted[-1] if noted and noted[-1].version == str(present) else Reign(str(present))


def last_noted(model: RegisteredModel) -> str | None:
    """The version whose reign was noted last, or None."""
    return _last(_noted(model))


def _last(noted: Mapping[str, Reign]) -> str | None:
    return next((reign.version for reign in reversed(list(noted.values()))), None)


def hand_over(client: MlflowClient, name: str, copy: str, number: str) -> None:
    """The reigns of a version that is about to be deleted, as a copy of another, go to that one."""
    for tag, reign in _noted(repeated(lambda: client.get_registered_model(name))).items():
        if reign.version == copy:
            _write(client, name, tag, replace(reign, version=number))


def _noted(model: RegisteredModel) -> dict[str, Reign]:
    """The reigns that were noted, by tag, the first one first, without one that never began."""
    return _begun(model, str(model.aliases.get(CHAMPION)))


def _begun(model: RegisteredModel, champion: str | None) -> dict[str, Reign]:
    """The same where another version was, or is, champion than the alias says."""
    tags = sorted(tag for tag in model.tags if tag.startswith(TAG_PREFIX))
    found = {tag: _reign(json.loads(model.tags[tag])) for tag in tags}
    return {tag: reign for tag, reign in found.items() if not reign.pending or reign.version == champion}


def _reign(content: dict[str, Any]) -> Reign:
    return Reign(**{**content, "forced": tuple(content.get("forced", ()))})
