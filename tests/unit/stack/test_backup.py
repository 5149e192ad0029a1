"""Backup and restore of the compose stack: what they refuse, and what they ask of Docker."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "infra" / "compose"


@pytest.fixture
def no_docker(tmp_path):
    """A PATH on which `docker` leaves a trace: nothing here may call it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    (programs / "docker").chmod(0o755)
    yield {"PATH": f"{programs}:/usr/bin:/bin"}
    assert not (tmp_path / "called").exists()


def run(script: str, *words: str | Path, environment: dict[str, str]) -> tuple[int, str]:
    command = [FOLDER / script, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("script", ["backup.sh", "restore.sh"])
def test_a_folder_must_be_named(script, no_docker):
    assert run(script, environment=no_docker) == (2, f"usage: ./{script} FOLDER\n")


def test_a_backup_overwrites_nothing(tmp_path, no_docker):
    said = f"error: {tmp_path} exists; name a folder that doesn't\n"
    assert run("backup.sh", tmp_path, environment=no_docker) == (1, said)


@pytest.mark.parametrize("sums", [None, "0" * 64 + "  s3.tar\n"])
def test_a_backup_that_is_not_whole_is_refused(tmp_path, no_docker, sums):
    folder = tmp_path / "backup"
    folder.mkdir()
    (folder / "s3.tar").write_bytes(b"cut")
    if sums:
        (folder / "SHA256SUMS").write_text(sums)
    code, said = run("restore.sh", folder, environment=no_docker)
    assert code == 1
    assert f"error: {folder} is no whole backup; take another one" in said


def test_a_backup_that_is_not_there_is_named(tmp_path, no_docker):
    code, said = run("restore.sh", tmp_path / "absent" / "monday", environment=no_docker)
    assert code == 1
    assert f"error: {tmp_path}/absent/monday is no whole backup; take another one" in said


def test_what_another_backup_writes_is_left_alone(tmp_path, no_docker):
    (tmp_path / "monday.partial").mkdir()
    (tmp_path / "monday.partial/mlflow.dump").touch()
    code, said = run("backup.sh", tmp_path / "monday", environment=no_docker)
    assert (code, "monday.partial exists" in said) == (1, True)
    assert (tmp_path / "monday.partial/mlflow.dump").exists()


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A copy of the scripts, and a `docker` that notes what it is asked and knows one volume."""
    scripts, programs = tmp_path / "compose", tmp_path / "bin"
    scripts.mkdir()
    programs.mkdir()
    for name in ("backup.sh", "restore.sh"):
        shutil.copy(FOLDER / name, scripts)
    (scripts / ".env").write_text("A=b\n")
    (programs / "docker").write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        'case "$*" in "volume inspect "*) [ "$3" = lab_s3-data ];; esac\n'
    )
    (programs / "docker").chmod(0o755)
    monkeypatch.setitem(globals(), "FOLDER", scripts)
    return tmp_path


def test_a_backup_changes_no_container(stack):
    """Else files of a newer version, taken before the backup, start a server that can't read the volume."""
    environment = {"PATH": f"{stack}/bin:/usr/bin:/bin"}
    assert run("backup.sh", stack / "monday", environment=environment)[0] == 0
    asked = (stack / "asked").read_text().splitlines()
    assert len([line for line in asked if " up " in line]) == 2
    assert all("--no-recreate" in line for line in asked if " up " in line)
    # Nobody writes any more when the first database is read.
    stopped = next(number for number, line in enumerate(asked) if " stop " in line)
    assert set(asked[stopped].split()[2:]) == {"worker", "mlflow", "prefect-services", "prefect", "s3"}
    assert stopped < min(number for number, line in enumerate(asked) if "pg_dump" in line)


@pytest.mark.parametrize("line", ["COMPOSE_PROJECT_NAME=lab", 'COMPOSE_PROJECT_NAME="lab"'])
def test_a_full_stack_of_another_name_is_not_overwritten(stack, line):
    backup = stack / "backup"
    backup.mkdir()
    (backup / "s3.tar").write_bytes(b"whole")
    (backup / "SHA256SUMS").write_text(f"{hashlib.sha256(b'whole').hexdigest()}  s3.tar\n")
    (stack / "compose/.env").write_text(f"A=b\n{line}\n")
    code, said = run("restore.sh", backup, environment={"PATH": f"{stack}/bin:/usr/bin:/bin"})
    assert (code, "the stack has data" in said) == (1, True)
    assert "compose" not in (stack / "asked").read_text()
