"""`accepted.json`: results that were kept although the code that made them has changed since.

`erv accept` writes it, git keeps it, and it travels with `dvc.lock`. Each record says how one lock entry
became another: the outputs are the same, the hashes of the code are those of the code as it is now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erv.files import write_text
from erv.pipeline.lock_file import PipelineError

ACCEPTED = "accepted.json"


@dataclass(frozen=True)
class AcceptedFile:
    """A file of code that changed: its workspace path, how, and DVC's hashes (None where it wasn't)."""

    path: str
    change: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Acceptance:
    """A result that was kept.

    Attributes:
        stage: such as `grpo@erv`.
        before: `erv.tracking.lock_entries.entry_hash` of the entry as it was.
        after: that of the entry that took its place.
        when: UTC, to the second, ISO 8601.
        who: `Ann Lee (ann@box)` (`erv.tracking.origin.who`).
        reason: as given; empty if no change of the code could matter.
        files: what changed.
    """

    stage: str
    before: str
    after: str
    when: str
    who: str
    reason: str
    files: tuple[AcceptedFile, ...]

    def __str__(self) -> str:
        why = self.reason or "nothing that runs has changed"
        changed = ", ".join(f"{file.path} ({file.change})" for file in self.files)
        return f"kept on {self.when} by {self.who}: {why}; {changed}"


def read_accepted(folder: str | Path = ".") -> tuple[Acceptance, ...]:
    """The records beside a `dvc.lock`, oldest first; nothing if no result was ever kept.

    Raises:
        PipelineError: the file is damaged.
    """
    path = Path(folder) / ACCEPTED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["accepted"]
        return tuple(_acceptance(item) for item in found)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{path}: not what `erv accept` writes ({reason}); restore it from git") from None


def add_accepted(new: Sequence[Acceptance], folder: str | Path = ".") -> None:
    """Adds records; one for the same two entries takes the place of an earlier one.

    Raises:
        PipelineError: the file is damaged.
    """
    known = {(item.stage, item.before, item.after) for item in new}
    kept = [item for item in read_accepted(folder) if (item.stage, item.before, item.after) not in known]
    document = {"accepted": [asdict(item) for item in (*kept, *new)]}
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_text(text, Path(folder) / ACCEPTED, shared=True, durable=True)


def behind(digest: str, records: Sequence[Acceptance]) -> list[Acceptance]:
    """How a lock entry came from earlier ones, the newest step first.

    Args:
        digest: of the entry, from `entry_hash`.
        records: from `read_accepted`.
    """
    found: list[Acceptance] = []
    seen = {digest}
    while True:
        step = next((item for item in reversed(records) if item.after == digest), None)
        if step is None or step.before in seen:
            return found
        found.append(step)
        digest = step.before
        seen.add(digest)


def _acceptance(item: dict[str, Any]) -> Acceptance:
    files = tuple(AcceptedFile(**{**file}) for file in item["files"])
    return Acceptance(**{**item, "files": files})
