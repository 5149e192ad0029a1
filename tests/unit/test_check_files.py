"""The hook that keeps secrets and large files out."""

import subprocess
import sys

import pytest

from infra.check_files import MAX_BYTES, faults, main
from tests.support.paths import ROOT


# Put together here, so that this file itself passes.
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
        ("key = 'AKIA" + "ABCDEFGHIJKLMNOP'", "an AWS access key"),
        ("token: ghp_" + "a1" * 18, "a token"),
        ("hf_" + "Ab1" * 11, "a token"),
        ("postgresql://erv:" + "hunter2hunter2" + "@db/erv", "a password in a URL"),
        ("ERV_S3_SECRET_KEY=" + "9f8e7d6c5b4a" * 2, "a secret with a value"),
        ('"password": "' + "correcthorse1" * 2 + '"', "a secret with a value"),
    ],
)
def test_secrets_are_found_and_not_printed(line, what, tmp_path, capsys):
    file = tmp_path / "settings.py"
    file.write_text(f"first = 1\n{line}\n")
    assert f"{file}:2: looks like {what}" in faults(file)
    assert main([str(file)]) == 1
    assert line not in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_PASSWORD=",
        "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set it in .env}",
        "postgresql://mlflow:${MLFLOW_DB_PASSWORD}@postgres:5432/mlflow",
        "secret_key = environment.s3_secret_key",
        "http://127.0.0.1:5000/api",
        "password='" + "abcdefgh12345678abcd" + "'  # not-a-secret: an example",
    ],
)
def test_lines_without_a_secret_pass(line, tmp_path):
    file = tmp_path / "settings.py"
    file.write_text(line)
    assert faults(file) == []


def test_large_files_are_refused(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"\0" * (MAX_BYTES + 1))
    assert faults(file) == [f"{file}: {MAX_BYTES + 1} bytes, more than {MAX_BYTES}; put it under DVC"]
    file.write_bytes(b"\0" * MAX_BYTES)
    assert faults(file) == []


def test_everything_tracked_passes():
    command = [sys.executable, "infra/check_files.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
