"""What a coordinator and its workers leave for each other in the bucket of DVC's remote, about one stage.

Everything is below `remote/stages/<key>`, where the key stands for the command, dependencies and parameters:

    waiting/<clone>.json         a coordinator that waits for this stage, rewritten while it does
    <attempt>/request.json       what is to run; whoever writes it first begins the attempt
    <attempt>/pulse.json         a counter that the worker increases while it lives
    <attempt>/log/<number>.txt   lines of the stage, in pieces
    <attempt>/checkpoints/...    training checkpoints, each with its record last
    <attempt>/superseded.json    the attempt no longer counts; its worker stops when it sees this
    <attempt>/result.json        the lock entry, or why there is none

Attempts are numbered from 1. Only the newest counts.
"""

from __future__ import annotations

import json
import platform
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from erv.errors import StorageError
from erv.storage.errors import ObjectError
from erv.storage.store import Store

PREFIX = "remote"
# A coordinator that has not rewritten its note for this long has ended.
WAITING_SECONDS = 60.0
_ATTEMPT = re.compile(r"(\d{4})/")


class Board:
    """The board of one stage.

    Args:
        store: of DVC's remote.
        bucket: its bucket.
        key: from `erv.remote.key`.
    """

    def __init__(self, store: Store, bucket: str, key: str) -> None:
        self.store = store
        self.key = key
        self.uri = f"s3://{bucket}/{PREFIX}/stages/{key}"

    def attempt_uri(self, attempt: int) -> str:
        """Where everything of an attempt is."""
        return f"{self.uri}/{attempt:04d}"

    def newest(self) -> int:
        """The newest attempt that somebody asked for; 0 if there is none."""
        numbers = [int(found[1]) for name in self._names() if (found := _ATTEMPT.match(name))]
        return max(numbers, default=0)

    def begin(self, attempt: int, request: dict[str, Any]) -> dict[str, Any]:
        """Writes the request of an attempt, unless another coordinator was faster.

        Returns:
            The request that counts.
        """
        # With a nonce, as `write_if` asks.
        ours = {**request, "nonce": uuid.uuid4().hex}
        if self.store.write_if(_bytes(ours), f"{self.attempt_uri(attempt)}/request.json", None) is not None:
            return ours
        return self.request(attempt)

    def request(self, attempt: int) -> dict[str, Any]:
        """The request of an attempt.

        Raises:
            ObjectError: there is none.
        """
        return self._read(f"{self.attempt_uri(attempt)}/request.json")

    def supersede(self, attempt: int, reason: str) -> None:
        """Says that an attempt no longer counts; the first reason stays."""
        marker = {"reason": reason, "by": platform.node(), "nonce": uuid.uuid4().hex}
        self.store.write_if(_bytes(marker), f"{self.attempt_uri(attempt)}/superseded.json", None)

    def superseded(self, attempt: int) -> str | None:
        """Why an attempt no longer counts; None if it does."""
        found = self._find(f"{self.attempt_uri(attempt)}/superseded.json")
        return None if found is None else str(found.get("reason"))

    def beat(self, attempt: int, pulse: dict[str, Any]) -> None:
        """Shows that the worker of an attempt lives."""
        self.store.write(_bytes(pulse), f"{self.attempt_uri(attempt)}/pulse.json")

    def pulse(self, attempt: int) -> dict[str, Any] | None:
        """What the worker of an attempt showed last; None if no worker has begun it."""
        return self._find(f"{self.attempt_uri(attempt)}/pulse.json")

    def write_log(self, attempt: int, piece: int, text: str) -> None:
        """Keeps a piece of the stage's output; pieces are numbered from 1."""
        # Names of files, in a message, need not be text.
        self.store.write(
            text.encode(errors="backslashreplace"), f"{self.attempt_uri(attempt)}/log/{piece:06d}.txt"
        )

    def read_log(self, attempt: int, piece: int) -> str | None:
        """A piece of the stage's output; None if it was removed."""
        try:
            return self.store.read(f"{self.attempt_uri(attempt)}/log/{piece:06d}.txt").decode()
        except ObjectError:
            return None

    def finish(self, attempt: int, result: dict[str, Any]) -> None:
        """Writes the result of an attempt."""
        self.store.write(_bytes(result), f"{self.attempt_uri(attempt)}/result.json")

    def result(self, attempt: int) -> dict[str, Any] | None:
        """The result of an attempt; None as long as it has none."""
        return self._find(f"{self.attempt_uri(attempt)}/result.json")

    def wait(self, who: str) -> None:
        """Notes that a coordinator waits for this stage; repeat it within `WAITING_SECONDS`.

        Args:
            who: the id of its clone, from `erv.remote.coordinator`. A clone has one coordinator at a time,
                so a note that a killed one has left is its own.
        """
        self.store.write(_bytes({"nonce": uuid.uuid4().hex}), f"{self.uri}/waiting/{who}.json")

    def leave(self, who: str) -> None:
        """Takes that note away."""
        self.store.delete(f"{self.uri}/waiting/{who}.json")

    def others_wait(self, who: str) -> bool:
        """Whether another coordinator waits for this stage, by the clock of the store."""
        for info in self.store.list(f"{self.uri}/waiting"):
            name = info.key.rpartition("/")[2].removesuffix(".json")
            found = self.store.aged(info.uri) if name != who else None
            if found is not None and found[2] < WAITING_SECONDS:
                return True
        return False

    def tidy(self) -> None:
        """Removes what nobody needs once there is a result: pulses, output, checkpoints; results stay."""
        kept = ("request.json", "result.json", "superseded.json")
        for info in self.store.list(self.uri):
            if not info.key.endswith(kept):
                with suppress(ObjectError):
                    self.store.delete(info.uri)

    def _names(self) -> list[str]:
        base = self.uri.partition("://")[2].partition("/")[2]
        return [info.key.removeprefix(f"{base}/") for info in self.store.list(self.uri)]

    def _find(self, uri: str) -> dict[str, Any] | None:
        try:
            return self._read(uri)
        except ObjectError:
            return None

    def _read(self, uri: str) -> dict[str, Any]:
        try:
            content = json.loads(self.store.read(uri))
        except (ValueError, RecursionError):
            raise StorageError(f"{uri}: not what erv writes there; delete it and run again") from None
        if not isinstance(content, dict):
            raise StorageError(f"{uri}: not what erv writes there; delete it and run again")
        return content


Open = Callable[[str, str], Board]  # from a bucket and a key


def _bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()  # in ASCII: names of files, in a message, need not be text
