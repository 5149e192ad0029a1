"""What all tests share: isolation from the user's environment, and one real stack for the integration
tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from erv.environment import Environment

ROOT = Path(__file__).resolve().parents[1]
_FOREIGN = ("AWS_", "MLFLOW_", "PREFECT_", "ERV_", "DVC_")


@pytest.fixture(autouse=True, scope="module")
def _environment_of_a_module() -> Iterator[None]:
    """What the fixtures of a module change in the environment is gone after it."""
    before = dict(os.environ)
    yield
    _restore(before)


@pytest.fixture(autouse=True)
def _no_foreign_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the user's servers; what a test changes in the environment is gone after it."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    # Of a server that Prefect starts by itself, where a test runs tasks without one.
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    clean = dict(os.environ)
    yield
    _restore(clean)


def _restore(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name not in variables]:
        del os.environ[name]
    os.environ.update(variables)


@pytest.fixture(autouse=True)
def _no_foreign_code() -> Iterator[None]:
    """What a test puts on the path is gone after it.

    MLflow puts the code of a model that it loads before ours, where processes that are started later find it.
    """
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@contextmanager
def running_stack(workspace: Path) -> Iterator[Environment]:
    """A real stack in a folder that is empty, stopped and gone at the end."""
    from erv.stack import clean, up

    shutil.copy(ROOT / "params.yaml", workspace)
    shutil.copytree(
        ROOT / ".dvc", workspace / ".dvc", ignore=shutil.ignore_patterns("*local*", "tmp", "cache")
    )
    try:
        yield up(workspace)
    finally:
        clean(workspace)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One real stack (S3, MLflow, Prefect on free ports of 127.0.0.1) in a workspace of its own.

    The workspace is `stack.workspace`: a folder with `params.yaml` and the DVC configuration of the
    repository. All integration tests share it, so a test uses bucket prefixes, experiments and names of its
    own.
    """
    with running_stack(tmp_path_factory.mktemp("stack")) as environment:
        yield environment
