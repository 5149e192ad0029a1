"""What was answered lately, so that people can say what they think of it; and pairs whose sides are blind."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from erv.answering.events import Done
from erv.register.opened import Opened

_MOST = 1000  # answers and pairs that are remembered


@dataclass(frozen=True)
class Given:
    """An answer.

    Attributes:
        id: known to the page alone.
        version: what answered.
        clip: name of the clip, for people.
        sha256: of its content.
        kept: name of the kept file; None if the user didn't say keep.
        subtitle: what is said in the clip, as the user wrote it.
        done: the answer.
        name: canonical name of the emotion that it names, see `erv.app.names`; None if it is unknown.
    """

    id: str
    version: Opened
    clip: str
    sha256: str
    kept: str | None
    subtitle: str | None
    done: Done
    name: str | None = None


@dataclass(frozen=True)
class Side:
    """A side of a blind pair: its version, and those of both sides in the order in which they were named."""

    version: str
    pair: tuple[str, ...]


class Memory:
    """Remembers answers and pairs while the server runs; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._sides: OrderedDict[str, Side] = OrderedDict()

    def remember(self, given: Given) -> None:
        """Keeps an answer."""
        with self._lock:
            self._given[given.id] = given
            while len(self._given) > _MOST:
                self._given.popitem(last=False)

    def given(self, name: str) -> Given | None:
        """The answer with an id; None if it is not known any more."""
        with self._lock:
            return self._given.get(name)

    def pair(self, versions: Sequence[str]) -> list[str]:
        """Tokens that stand for versions, in an order that nobody can foresee."""
        shuffled = list(versions)
        secrets.SystemRandom().shuffle(shuffled)
        tokens = [secrets.token_urlsafe(12) for _ in shuffled]
        sides = [Side(version, tuple(versions)) for version in shuffled]
        with self._lock:
            self._sides.update(zip(tokens, sides, strict=True))
            while len(self._sides) > _MOST:
                self._sides.popitem(last=False)
        return tokens

    def side_of(self, token: str) -> Side | None:
        """The side that a token stands for; None if it is not known any more."""
        with self._lock:
            return self._sides.get(token)


def new_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_urlsafe(16)
