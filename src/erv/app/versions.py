"""The versions that can be chosen, and the processes of those that were."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
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


@dataclass(eq=False)
class Loaded:
    """A version that answers; `title` is that of its choice, `users` counts those that are asking it."""

    title: str
    opened: Opened
    answerer: Answerer
    users: int = 0

    @property
    def idle(self) -> bool:
        """Whether nobody asks it, and it has nothing to do."""
        return not self.users and not self.answerer.waiting and not self.answerer.answering


class NoVersion(RegistryError):
    """There is no version of that name to choose; the message is for the page."""


class Versions:
    """Starts a version when it is first asked for; any thread may use it.

    Args:
        choices: what can be chosen now, the usual one first. Raises ErvError if that can't be told.
        start: starts the process of a bundle. Raises ErvError.
        most: versions that are loaded at once, at least 2, since two can be compared. The one that was asked
            the longest ago makes room. While so many are being asked, one more stays until the first is done.
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
        """Loads a version if it isn't, which takes a while; raises as `using`.

        It may make room for another at any time. To ask it, use `using`.
        """
        with self.using(version) as loaded:
            return loaded

    @contextlib.contextmanager
    def using(self, version: str) -> Iterator[Loaded]:
        """A version, loaded if it isn't, which isn't closed before the end of the block.

        Raises:
            NoVersion: there is no such version.
            ErvError: it can't be loaded.
        """
        loaded = self._taken(version)
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.users -= 1
            self._make_room()

    def _taken(self, version: str) -> Loaded:
        """A version that is in use from now on."""
        with self._lock:
            one_by_one = self._loading.setdefault(version, threading.Lock())
        with one_by_one:
            if (found := self._known(version)) is not None:
                return found
            choice = next((one for one in self._choices() if one.id == version), None)
            if choice is None:
                raise NoVersion(f"there is no version {version!r} to choose; load the page again")
            opened = choice.open()
            loaded = Loaded(choice.title, opened, self._start(opened), users=1)
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
        """A version that is loaded, in use from now on."""
        with self._lock:
            found = self._loaded.get(version)
            if found is None:
                return None
            if found.answerer.alive:
                self._loaded.move_to_end(version)
                found.users += 1
                return found
            del self._loaded[version]
        found.answerer.close()  # it died
        return None

    def _make_room(self) -> None:
        with self._lock:
            # Not the one that was asked last: it may have been loaded for somebody who asks it next.
            idle = [name for name, one in list(self._loaded.items())[:-1] if one.idle]
            surplus = idle[: max(0, len(self._loaded) - self._most)]
            ending = [self._loaded.pop(name) for name in surplus]
        for one in ending:
            one.answerer.close()
