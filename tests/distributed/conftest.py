"""One stack for all cases, with PostgreSQL behind it, and the pools as `erv run --worker` makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from tests.conftest import running_stack
from tests.distributed.databases import Databases, behind_the_servers
from tests.distributed.topology import Clone, Worker
from tests.support.postgres import postgres


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """PostgreSQL, as a server of several people has it; without it, all fails and says what to install."""
    with postgres() as server:
        yield Databases(server)


@pytest.fixture(scope="session")
def stack(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The stack of `tests/conftest.py`, but MLflow and Prefect keep what they know in PostgreSQL."""
    with behind_the_servers(databases), running_stack(tmp_path_factory.mktemp("stack")) as environment:
        yield environment
        assert not [*environment.stack.rglob("*.db")], "nothing is in SQLite"


@pytest.fixture
def new_clone(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clone]:
    """Makes a coordinator's clone."""

    def make(bucket: str | None = None) -> Clone:
        return Clone(tmp_path_factory.mktemp("clone"), stack, bucket)

    return make


@pytest.fixture
def clone(new_clone: Callable[..., Clone]) -> Clone:
    return new_clone()


@pytest.fixture
def new_worker(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Worker]]:
    """Starts workers, which end with the test; `servers` are those of the stack, by other addresses."""
    started: list[Worker] = []

    def start(servers: Environment = stack, **options: Any) -> Worker:
        folder: Path = tmp_path_factory.mktemp("worker")
        started.append(Worker(folder, servers, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.end()
