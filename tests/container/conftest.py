"""The engine, and the stack that all tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.container import images
from tests.container.engine import Engine, missing, open_engine
from tests.container.server import Server, blocks


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Podman with a folder of its own; it is left without containers, volumes and networks."""
    if lacks := missing():
        pytest.exit(f"make test-containers needs {'; '.join(lacks)}", returncode=1)
    engine = open_engine()
    engine.clear()
    yield engine
    engine.clear()


@pytest.fixture(scope="session")
def base_images(engine: Engine) -> dict[str, str]:
    """Images of python, postgres and redis."""
    return images.prepare(engine)


@pytest.fixture(scope="session")
def server(
    engine: Engine, base_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The stack, started as the page says."""
    server = Server(engine, tmp_path_factory.mktemp("srv"), base_images)
    server.folder.chmod(0o755)  # the worker is another user
    server.folder.parent.chmod(0o755)
    server.prepare()
    try:
        for command in blocks("Start")[0]:
            if not command.startswith("cd "):
                server.shell(command)
            if "make_env.py" in command:
                server.fill_in()
        yield server
    finally:
        server.compose("down", "--volumes", check=False)
