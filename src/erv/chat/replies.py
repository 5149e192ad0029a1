"""Replies, stored on disk as soon as they arrive, so that a stopped run can resume."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import diskcache
from diskcache.core import MODE_PICKLE

from erv.chat.protocol import Message
from erv.errors import DataError
from erv.files import sha256_of_text

# Replies stay in the one database file, whatever their length.
_ALL_INSIDE = 2**40


class _Json(diskcache.JSONDisk):
    """Stores JSON; never loads a pickle that somebody put into the file."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """A stored value; raises ValueError if this cache didn't write it."""
        if mode == MODE_PICKLE:
            raise ValueError("a pickle, which this cache never writes")
        return super().fetch(mode, filename, value, read)


class ReplyCache:
    """Replies by question; a context manager.

    Safe for several processes at a time, and against being killed at any moment.

    Args:
        folder: created if missing.

    Raises:
        DataError: from any method, if the folder can't be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with self._clear_errors():
            self._cache = diskcache.Cache(
                str(folder),
                disk=_Json,
                eviction_policy="none",
                cull_limit=0,
                size_limit=_ALL_INSIDE,
                disk_min_file_size=_ALL_INSIDE,
            )

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cache.close()

    @staticmethod
    def key(
        address: str, model: str, messages: Sequence[Message], temperature: float, max_reply_tokens: int
    ) -> str:
        """The key of a question: the SHA-256 of everything that decides its reply, and of who replies."""
        asked = json.dumps([address, model, list(messages), float(temperature), max_reply_tokens])
        return sha256_of_text(asked)

    def get(self, key: str) -> str | None:
        """A reply; None if there is none, or if it can't be read."""
        reply = self._entry(key).get("reply")
        return reply if isinstance(reply, str) else None

    def prompt_tokens(self, key: str) -> int | None:
        """The prompt tokens that a reply took; None if there is none, or if it can't be read."""
        taken = self._entry(key).get("prompt_tokens")
        return taken if isinstance(taken, int) else None

    def put(self, key: str, reply: str, prompt_tokens: int, reply_tokens: int) -> None:
        """Stores a reply and what it took."""
        entry = {"reply": reply, "prompt_tokens": prompt_tokens, "reply_tokens": reply_tokens}
        with self._clear_errors():
            self._cache.set(key, entry)

    def _entry(self, key: str) -> dict[str, Any]:
        with self._clear_errors():
            try:
                entry = self._cache.get(key)
            except (ValueError, TypeError, RecursionError, zlib.error):
                return {}  # damaged: ask again and overwrite it
        return entry if isinstance(entry, dict) else {}

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except diskcache.Timeout:
            raise DataError(
                f"{self._folder}: another process holds the stored replies of chat models; let it finish, and"
                " run this again"
            ) from None
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{self._folder}: the stored replies of chat models can't be read or written ({error}); free"
                " space or check permissions, or delete the folder, after which they are asked again"
            ) from error
