"""`erv connect`: a clean clone with nothing but `ERV_*` variables, on servers that it didn't start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erv.doctor.doctor import examine
from erv.environment import Environment
from erv.storage.store import open_store
from tests.integration.proxy import Proxy
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def colleague(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A workspace whose outputs are in the shared remote, and committed."""
    scratch = Scratch(tmp_path_factory.mktemp("colleague"), stack)
    scratch.python("-m", "dvc", "repro", "-q")
    scratch.python("-m", "dvc", "push")
    (scratch.folder / ".gitignore").write_text("/.erv/\n")
    git(scratch.folder, "add", "--all")
    git(scratch.folder, "commit", "-qm", "run")
    return scratch


@pytest.fixture
def clone(colleague: Scratch, tmp_path: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(colleague.folder), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def variables(colleague: Scratch, **changed: str) -> dict[str, str]:
    return {**colleague.variables(), **colleague.environment.variables(), **changed}


def run(
    clone: Path, environment: dict[str, str], *command: str, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=clone, env=environment, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


ERV = ("-c", "from erv.cli import main; main()")


def test_a_clean_clone_pulls_what_a_colleague_has_pushed(colleague: Scratch, clone: Path) -> None:
    environment = variables(colleague)
    doctor = run(clone, environment, *ERV, "doctor")
    assert "-> `erv connect` writes it" in doctor.stdout
    assert "erv stack up" not in doctor.stdout, "nothing is started that the user didn't ask for"

    said = run(clone, environment, *ERV, "connect")
    assert said.returncode == 0, said.stderr
    own = colleague.environment
    s3, mlflow, prefect, dvc = said.stdout.splitlines()
    listed = f"takes the key and lists erv-raw, {own.dvc_bucket}, erv-mlflow"
    assert s3 == f"S3       {own.s3_endpoint} {listed}; {own.dvc_bucket} can be written to and read"
    assert not open_store(own).exists(f"s3://{own.dvc_bucket}/.erv-connect")
    assert mlflow.startswith("MLflow   3.")
    assert mlflow.endswith(f" at {own.mlflow_uri}")
    assert prefect.endswith(f" at {own.prefect_api_url}")
    assert dvc.startswith(f"DVC      .dvc/config.local now points at s3://{own.dvc_bucket};")
    assert not any(secret in said.stdout + said.stderr for secret in own.secrets)

    # Git sees no key, and a shell without any variable can pull.
    assert git(clone, "status", "--porcelain") == ""
    pulled = run(clone, colleague.variables(), "-m", "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr
    assert (clone / "last.txt").read_bytes() == (colleague.folder / "last.txt").read_bytes()
    assert not (clone / ".erv/stack.env").exists()

    written = (clone / ".dvc/config.local").read_bytes()
    again = run(clone, environment, *ERV, "connect")
    assert ".dvc/config.local already pointed at" in again.stdout
    assert (clone / ".dvc/config.local").read_bytes() == written
    doctor = run(clone, environment, *ERV, "doctor")
    assert "erv connect" not in doctor.stdout
    assert "ok    stack           none of its own: ERV_* variables name S3, MLflow, Prefect" in doctor.stdout


def test_another_shell_of_a_connected_clone_is_told_what_it_lacks(colleague: Scratch, clone: Path) -> None:
    assert run(clone, variables(colleague), *ERV, "connect").returncode == 0
    own, bare = colleague.environment, colleague.variables()
    record = clone / ".erv/connected.env"
    assert record.stat().st_mode & 0o777 == 0o600
    assert not any(secret in record.read_text() for secret in own.secrets)

    lacking = run(clone, bare, *ERV, "connect")
    assert lacking.returncode == 1
    first, *exports = lacking.stderr.splitlines()
    assert first.startswith(f"error: this clone is connected to S3 at {own.s3_endpoint}, MLflow at")
    assert f"  export ERV_PREFECT_API_URL={own.prefect_api_url}" in exports
    assert "  export ERV_S3_SECRET_KEY=..." in exports
    assert f"  export ERV_DVC_BUCKET={own.dvc_bucket}" in exports
    said = run(clone, bare, *ERV, "run")
    assert said.returncode == 1
    assert (
        f"error: this clone is connected to S3 at {own.s3_endpoint}, MLflow at {own.mlflow_uri}, Prefect at"
        f" {own.prefect_api_url}: set ERV_S3_ENDPOINT=" in said.stderr
    )
    doctor = run(clone, bare, *ERV, "doctor")
    assert "-> set what `erv connect` lists" in doctor.stdout
    told = run(clone, bare, *ERV, "stack", "env")
    assert "warning: this clone is connected to Prefect" in told.stderr
    key = run(clone, bare, *ERV, "stack", "key")
    for text in (lacking, said, doctor, told, key):
        assert "erv stack up" not in text.stdout + text.stderr
    # With them, nothing is left to say.
    told = run(clone, variables(colleague), *ERV, "stack", "env")
    assert (told.returncode, told.stderr) == (0, "")


def test_every_server_that_cannot_be_used_is_named_and_nothing_is_written(
    colleague: Scratch, clone: Path
) -> None:
    wrong = variables(
        colleague,
        ERV_S3_SECRET_KEY="wrong",
        ERV_MLFLOW_TOKEN="wrong",
        ERV_PREFECT_API_URL="http://127.0.0.1:9/api",
    )
    said = run(clone, wrong, *ERV, "connect")
    assert said.returncode == 1
    first, *faults = said.stderr.splitlines()
    assert first == "error: not connected, nothing was written:"
    s3, mlflow, prefect = faults
    assert "refuses the key" in s3
    assert (
        f"MLflow at {colleague.environment.mlflow_uri} answers 401; check its address and its key" in mlflow
    )
    assert "Prefect at http://127.0.0.1:9/api can't be reached; check ERV_PREFECT_API_URL" in prefect
    assert "erv stack up" not in said.stderr
    assert not (clone / ".dvc/config.local").exists()


@pytest.mark.parametrize(
    ("refused", "said", "stays"),
    [
        ("PUT ", "can't be written to (s3://", False),
        ("DELETE ", "can be written and read, but nothing can be deleted there (s3://", True),
    ],
)
def test_it_says_what_a_key_may_not_do(
    colleague: Scratch, clone: Path, refused: str, said: str, stays: bool
) -> None:
    own = colleague.environment
    proxy = Proxy(own.s3_endpoint or "")
    proxy.refused[refused] = "AccessDenied"
    try:
        answer = run(clone, variables(colleague, ERV_S3_ENDPOINT=proxy.endpoint), *ERV, "connect")
    finally:
        proxy.close()
    assert answer.returncode == 0, answer.stderr
    line = answer.stdout.splitlines()[0]
    assert f"; {own.dvc_bucket} {said}" in line
    assert ("`dvc push` works, `dvc gc --cloud` won't" in line) == stays
    assert ("so `dvc push` won't work" in line) != stays
    probe = f"s3://{own.dvc_bucket}/.erv-connect"
    assert open_store(own).exists(probe) == stays
    open_store(own).delete(probe)


def test_it_says_which_variables_are_missing(colleague: Scratch, clone: Path) -> None:
    environment = {name: value for name, value in variables(colleague).items() if name != "ERV_S3_SECRET_KEY"}
    said = run(clone, environment, *ERV, "connect")
    assert said.returncode == 1
    assert said.stderr.startswith("error: ERV_S3_SECRET_KEY not set, so no object store is named;")


def test_keys_are_not_written_where_git_would_see_them(colleague: Scratch, clone: Path) -> None:
    (clone / ".dvc/.gitignore").unlink()
    said = run(clone, variables(colleague), *ERV, "connect")
    assert said.returncode == 1
    assert said.stderr.startswith("error: .dvc/config.local is not ignored by git")
    assert not (clone / ".dvc/config.local").exists()


def test_servers_of_others_that_are_away_are_not_started(
    colleague: Scratch, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"ERV_S3_ENDPOINT": "http://127.0.0.1:9", "ERV_MLFLOW_URI": "http://127.0.0.1:9"}
    for name, value in {**colleague.environment.variables(), **away}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone)
    found = {finding.name: finding for finding in examine(clone)}
    assert found["storage"].remedy == "check ERV_S3_ENDPOINT and the server, then run `erv connect`"
    assert found["tracking"].remedy == "check ERV_MLFLOW_URI and the server, then run `erv connect`"
    assert not any("erv stack up" in finding.remedy for finding in found.values())
    assert not (clone / ".erv/stack").exists()
