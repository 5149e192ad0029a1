"""The command `erv app`: what it doesn't start with, who is answered, what its page tells of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from erv.app.feedback import SENT, Feedback, Opinion
from tests.support.websites import program
from tests.unit.app.test_feedback import GIVEN

pytestmark = pytest.mark.integration

KEY = "k" * 16  # not-a-secret


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder that passes for a bundle until it is loaded, which these tests don't need."""
    folder = tmp_path / "models/candidate"
    folder.mkdir(parents=True)
    (folder / "serving.json").write_text("{}")
    return folder


def test_who_is_answered(bundle: Path, tmp_path: Path) -> None:
    arguments = ["app", "--bundle", str(bundle), "--port", "0", "--device", "cpu"]
    more = {"ERV_APP_KEY": KEY, "ERV_APP_HOSTS": "app.example, *.lab.example"}
    with program(arguments, tmp_path / "log", folder=tmp_path, more=more) as served:
        with httpx.Client(base_url=served.address, trust_env=False) as client:
            assert client.get("/").status_code == 401
            client.headers["Authorization"] = f"Bearer {KEY}"
            for host, status in (("app.example", 200), ("a.lab.example", 200), ("other.example", 400)):
                assert client.get("/", headers={"Host": host}).status_code == status
            page = client.get("/").text
            assert ">candidate</option>" in page
            assert str(tmp_path) not in page
            answer = client.post("/open", json={"version": "1"})
            assert answer.status_code == 503
            assert str(tmp_path) not in answer.text
        assert served.end() == 0
    said = (tmp_path / "log").read_text()
    assert f"{bundle}/serving.json" in said, "the log says why it can't be loaded"
    assert KEY not in said


def test_all_bundles_are_announced(bundle: Path, tmp_path: Path) -> None:
    arguments = ["app", "--port", "0", "--device", "cpu", "--bundle", str(bundle)]
    for name in ("older", "oldest"):
        shutil.copytree(bundle, tmp_path / name)
        arguments += ["--bundle", str(tmp_path / name)]
    with program(arguments, tmp_path / "log", folder=tmp_path) as served:
        assert served.end() == 0
    said = (tmp_path / "log").read_text()
    announced = f"candidate, older and oldest explain clips at {served.address}\n"
    assert said.startswith(f"loading candidate ...\n{announced}")


def test_an_empty_key_is_none(bundle: Path, tmp_path: Path) -> None:
    arguments = ["app", "--bundle", str(bundle), "--port", "0", "--device", "cpu"]
    with program(arguments, tmp_path / "log", folder=tmp_path, more={"ERV_APP_KEY": ""}) as served:
        assert httpx.get(served.address, trust_env=False).status_code == 200
        assert served.end() == 0


def test_it_starts_and_ends_without_waiting_for_mlflow(bundle: Path, tmp_path: Path) -> None:
    Feedback(tmp_path / ".erv/app").add(GIVEN, Opinion("up"))
    arguments = ["app", "--bundle", str(bundle), "--port", "0", "--device", "cpu"]
    before = time.monotonic()
    # Nothing listens there: MLflow's client gives up after more than a minute.
    away = {"ERV_MLFLOW_URI": "http://127.0.0.1:9"}
    with program(arguments, tmp_path / "log", folder=tmp_path, more=away) as served:
        assert httpx.get(served.address, trust_env=False).status_code == 200
        assert served.end() == 0
    assert time.monotonic() - before < 50
    assert not (tmp_path / ".erv/app" / SENT).exists()


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0 can be reached from other machines, and there is no key"),
        (["--host", "0.0.0.0"], {"ERV_APP_KEY": ""}, "there is no key; set ERV_APP_KEY"),
        (["--host", "0.0.0.0"], {"ERV_APP_KEY": "a"}, "ERV_APP_KEY: key 1 of 1 can't be used"),
        ([], {"ERV_APP_HOSTS": "a.*.example"}, "can't be the name of a host"),
        (["--bundle", "models/../models/candidate"], {}, "is named twice, and would be compared with itself"),
    ],
    ids=str,
)
def test_a_command_that_can_not_serve(
    bundle: Path, tmp_path: Path, arguments: list[str], variables: dict[str, str], said: str
) -> None:
    command = [sys.executable, "-c", "from erv.cli import main; main()", "app", "--port", "0"]
    done = subprocess.run(
        [*command, "--bundle", str(bundle), *arguments],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
