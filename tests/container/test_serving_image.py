"""The image that serves a version, built and run as infra/serving/Dockerfile says: `make test-containers`.

`TORCH_INDEX` is passed to the build, if it is set.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.container.engine import Engine
from tests.support.paths import ROOT
from tests.support.serving_image import documented_run
from tests.support.tiny_bundle import write_bundle, write_clip

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]

TAG = "localhost/erv-serving-test:latest"
START_SECONDS = 180.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "good.mp4")
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def image(engine: Engine, base_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of a saved model, whose folder is the context."""
    import mlflow

    from erv.register.model_content import model_content

    folder = tmp_path_factory.mktemp("image")
    (folder / "candidate").mkdir()
    content = model_content(write_bundle(folder / "candidate"), folder / "gathered")
    mlflow.pyfunc.save_model(folder / "model", **content)
    passed = {"PYTHON_IMAGE": base_images["python"], "TORCH_INDEX": os.environ.get("TORCH_INDEX", "")}
    given = [f"--build-arg={name}={value}" for name, value in passed.items() if value]
    file = str(ROOT / "infra/serving/Dockerfile")
    engine.run("docker", "build", *given, "-f", file, "-t", TAG, str(folder / "model"), timeout=3000)
    return TAG


@pytest.fixture(scope="module")
def container(engine: Engine, image: str, clips: Path) -> Iterator[Container]:
    """A running container, which answers."""
    # A free port, and what is left of it is looked at.
    given = [word for word in documented_run()[2:-1] if word != "--rm"]
    words = [word.replace("/srv/clips", str(clips)).replace(":5001:5001", "::5001") for word in given]
    container = Container(engine, engine.run("docker", "run", "--detach", *words, image))
    try:
        container.wait()
        yield container
    finally:
        engine.podman("rm", "--force", container.id, check=False)


@dataclass(frozen=True)
class Container:
    engine: Engine
    id: str

    @property
    def address(self) -> str:
        return f"http://{self.engine.podman('port', self.id, '5001').splitlines()[0]}"

    def state(self, what: str) -> str:
        return self.engine.podman("inspect", f"--format={{{{.State.{what}}}}}", self.id)

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        command = ["podman", "exec", self.id, "python", "-c", script]
        return subprocess.run(
            command, env=self.engine.environment, capture_output=True, text=True, check=False
        )

    def wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.state("Running") == "true":
            try:
                urllib.request.urlopen(f"{self.address}/ping", timeout=5)
                return
            except OSError:
                time.sleep(1)
        pytest.fail(self.engine.podman("logs", self.id)[-2000:])


def ask(container: Container, *clips: str) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_records": [{"clip": clip} for clip in clips]}).encode()
    request = urllib.request.Request(
        f"{container.address}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read())["predictions"]
    return rows


def test_a_container_answers_clips_of_its_folder(container: Container) -> None:
    good, absent = ask(container, "good.mp4", "absent.mp4")
    assert good["error"] is None
    assert isinstance(good["completion"], str)  # so tiny a policy may say nothing
    assert absent["error"] == "no such file below the served folder"


def test_it_runs_without_rights_and_can_write_nowhere_else(container: Container) -> None:
    inside = container.python
    assert inside("import os; print(os.getuid(), os.getgid())").stdout.split() == ["1000", "1000"]
    for place in ("/clips/new", "/srv/model/new", "/opt/venv/new"):
        assert "Read-only file system" in inside(f"open({place!r}, 'w')").stderr
    capabilities = inside("print(*[l for l in open('/proc/self/status') if l.startswith('Cap')])").stdout
    assert {line.split()[1] for line in capabilities.split("\n") if line.strip()} == {"0" * 16}


def test_requests_by_another_name_are_refused(container: Container) -> None:
    request = urllib.request.Request(f"{container.address}/ping", headers={"Host": "models.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400


def test_what_is_installed_is_what_the_version_pins(container: Container) -> None:
    script = (
        "import importlib.metadata as m; lines = open('/srv/model/requirements.txt').read().split();"
        "pins = dict(l.split('==') for l in lines if '==' in l);"
        "print([n for n, v in pins.items() if m.version(n).partition('+')[0] != v])"
    )
    assert container.python(script).stdout.strip() == "[]"


def test_it_ends_when_it_is_told(container: Container) -> None:
    """Comes last. A container that doesn't listen is killed, with 137."""
    container.engine.podman("stop", "--time=60", container.id)
    assert container.state("ExitCode") != "137"
