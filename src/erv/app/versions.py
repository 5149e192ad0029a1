"""The versions that can be chosen, and the processes of those that were."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from erv.answering.process import Answerer
from erv.errors import RegistryError
from erv.register.opened import Opened


@dataclass(frozen=True)
class Choice:
    """A version that can be chosen.

    Attributes:
        id: by which pages ask for it.
        title: for people, such as `version 3 (champion)`.
        open: brings it onto this machine. Raises ErvError.
    """

    id: str
    title: str
    open: Callable[[], Opened]


@dataclass(frozen=True)
class Loaded:
    """A version that answers; `title` is that of its choice."""

    title: str
    opened: Opened
    answerer: Answerer


class Versions:
    """Starts a version when it is first asked for; any thread may use it.

    Args:
        choices: what can be chosen now, the usual one first. Raises ErvError if that can't be told.
        start: starts the process of a bundle. Raises ErvError.
        most: versions that are loaded at once, at least 2, since two can be compared. The one that was asked
            the longest ago makes room.
    """

    def __init__(
        self,
        choices: Callable[[], Sequence[Choice]],
        start: Callable[[Opened], Answerer],
        most: int = 2,
    ) -> None:
        if most < 2:
            raise ValueError(f"most is {most}, expected at least 2")
        self._choices, self._start, self._most = choices, start, most
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}

    def choices(self) -> Sequence[Choice]:
        """What can be chosen; raises ErvError."""
        return self._choices()

    def is_loaded(self, version: str) -> bool:
        """Whether a version would answer at once."""
        with self._lock:
            found = self._loaded.get(version)
            return found is not None and found.answerer.alive

    def get(self, version: str) -> Loaded:
        """A version, loaded if it isn't; that takes a while.

        Raises:
            RegistryError: there is no such version.
            ErvError: it can't be loaded.
        """
        with self._lock:
            one_by_one = self._loading.setdefault(version, threading.Lock())
        with one_by_one:
            if (found := self._known(version)) is not None:
                return found
            choice = next((one for one in self._choices() if one.id == version), None)
            if choice is None:
                raise RegistryError(f"there is no version {version!r} to choose; load the page again")
            opened = choice.open()
            loaded = Loaded(choice.title, opened, self._start(opened))
            with self._lock:
                self._loaded[version] = loaded
        self._make_room()
        return loaded

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            ending, self._loaded = list(self._loaded.values()), OrderedDict()
        for one in ending:
            one.answerer.close()

    def _known(self, version: str) -> Loaded | None:
        with self._lock:
            found = self._loaded.get(version)
            if found is None:
                return None
            if found.answerer.alive:
                self._loaded.move_to_end(version)
                return found
            del self._loaded[version]
        found.answerer.close()  # it died
        return None

    def _make_room(self) -> None:
        with self._lock:
            idle = [
                name
                for name, one in self._loaded.items()
                if not one.answerer.waiting and not one.answerer.answering
            ]
            surplus = idle[: max(0, len(self._loaded) - self._most)]
            ending = [self._loaded.pop(name) for name in surplus]
        for one in ending:
            one.answerer.close()
