"""Backup and restore of the compose stack: what they refuse before any container is touched."""

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
