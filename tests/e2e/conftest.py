"""Two clones of the working tree: one driven by the flow, one by plain `dvc repro`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.workspace import Listener, Workspace, clone


@pytest.fixture(scope="session")
def foreign() -> Iterator[Listener]:
    """The servers that the user's own environment names; nothing may ever connect to them."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, foreign: Listener) -> Iterator[Workspace]:
    """A clone with its stack up and the tiny sample corpus uploaded and pinned."""
    workspace = clone(tmp_path_factory.mktemp("flow"), foreign)
    try:
        workspace.run("erv", "stack", "up")
        workspace.run("erv", "sample-data", "--size", "tiny", "--upload")
        workspace.run("erv", "data", "pin")
        yield workspace
    finally:
        workspace.run("erv", "stack", "down", check=False)


@pytest.fixture(scope="session")
def trained(prepared: Workspace) -> Workspace:
    """The clone after one complete `erv run`; the run's output is kept as its first log entry."""
    prepared.log.append(prepared.run("erv", "run").stdout)
    return prepared
