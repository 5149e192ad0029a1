"""Which versions are loaded, and when one makes room for another."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from erv.app.given import Memory
from erv.app.versions import Choice, Versions
from erv.errors import RegistryError
from erv.register.opened import Opened


class Shelf:
    """Stands for processes that take long to start."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.processes: dict[str, SimpleNamespace] = {}

    def start(self, opened: Opened) -> SimpleNamespace:
        self.started.append(opened.name)
        process = SimpleNamespace(alive=True, waiting=0, answering=0, closed=False)
        process.close = lambda: setattr(process, "closed", True)
        self.processes[opened.name] = process
        return process

    def versions(self, *names: str) -> Versions:
        choices = [
            Choice(name, f"version {name}", partial(Opened, name, name, "d", Path())) for name in names
        ]
        return Versions(lambda: choices, self.start)  # type: ignore[arg-type]


def test_a_version_is_started_once_and_the_oldest_idle_one_makes_room() -> None:
    shelf = Shelf()
    versions = shelf.versions("1", "2", "3", "4")
    threads = [threading.Thread(target=versions.get, args=("1",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shelf.started == ["1"]
    assert versions.get("2").title == "version 2"
    versions.get("1")
    shelf.processes["2"].answering = 1
    versions.get("3")
    assert not shelf.processes["2"].closed, "it is answering"
    assert shelf.processes["1"].closed
    assert not versions.is_loaded("1")
    shelf.processes["2"].answering = 0
    versions.get("4")
    assert shelf.processes["2"].closed
    versions.close()
    assert all(process.closed for process in shelf.processes.values())


def test_a_third_stays_while_two_answer_until_one_of_them_is_done() -> None:
    shelf = Shelf()
    versions = shelf.versions("1", "2", "3")
    for name in ("1", "2"):
        versions.get(name)
        shelf.processes[name].answering = 1
    assert versions.get("3").answerer.alive
    assert not any(process.closed for process in shelf.processes.values())
    shelf.processes["1"].answering = 0
    with versions.using("3"):
        pass
    assert [name for name, process in shelf.processes.items() if process.closed] == ["1"]


def test_one_that_somebody_is_about_to_ask_is_not_closed() -> None:
    shelf = Shelf()
    versions = shelf.versions("1", "2", "3", "4")
    with versions.using("1") as first, versions.using("2"):
        versions.get("3")
        versions.get("4")
        assert not first.answerer.closed  # type: ignore[attr-defined]
        assert shelf.processes["3"].closed, "nobody asks it"
    assert sum(not process.closed for process in shelf.processes.values()) == 2
    assert not shelf.processes["4"].closed, "it was asked last"


def test_one_that_died_is_started_again() -> None:
    shelf = Shelf()
    versions = shelf.versions("1")
    versions.get("1")
    shelf.processes["1"].alive = False
    assert not versions.is_loaded("1")
    assert versions.get("1").answerer.alive
    assert shelf.started == ["1", "1"]


def test_others_can_not_be_chosen() -> None:
    with pytest.raises(RegistryError, match="no version '/etc' to choose"):
        Shelf().versions("1").get("/etc")


def test_the_sides_of_a_pair_can_not_be_foreseen() -> None:
    memory = Memory()
    first = set()
    for _ in range(40):
        sides = memory.pair(["1", "2"])
        known = [memory.side_of(side) for side in sides]
        assert {one.version for one in known if one} == {"1", "2"}
        assert {one.pair for one in known if one} == {("1", "2")}, "the order tells nothing"
        assert not any(side in ("1", "2") for side in sides)
        first.add(known[0].version if known[0] else None)
    assert first == {"1", "2"}
    assert memory.side_of("1") is None
