"""One stack for all cases, with the pools as `erv run --worker` makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from erv.environment import Environment
from tests.distributed.topology import Clone, Worker


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
    """Starts workers, which end with the test."""
    started: list[Worker] = []

    def start(**variables: str) -> Worker:
        folder: Path = tmp_path_factory.mktemp("worker")
        started.append(Worker(folder, stack, **variables))
        return started[-1]

    yield start
    for worker in started:
        worker.end()
