"""Whether the servers of others that a clone is connected to answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from erv.environment import recorded_servers
from erv.stack.reach import unreachable

# Where each server answers without a key, below its address; S3 refuses, which is an answer too.
_ASKED = {"S3": "", "MLflow": "/health", "Prefect": "/health"}


@dataclass(frozen=True)
class Theirs:
    """A server of others.

    Attributes:
        name: S3, MLflow or Prefect.
        state: `unknown` if its address isn't written down here, as Amazon's own.
        url: its address, or words for one that isn't known.
    """

    name: str
    state: Literal["answers", "away", "unknown"]
    url: str


def connected_status(workspace: str | Path = ".") -> Iterator[Theirs]:
    """The servers that a clone is connected to; nothing if it is connected to none. Each takes 5 s at most.

    Raises:
        SettingsError: what `erv connect` has written is damaged.
    """
    for name, url in recorded_servers(workspace).items():
        if not url.startswith(("http://", "https://")):
            yield Theirs(name, "unknown", url)
            continue
        away = unreachable(name, f"{url.rstrip('/')}{_ASKED[name]}", workspace)
        yield Theirs(name, "away" if away else "answers", url)
