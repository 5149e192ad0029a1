"""Whether the doctor sees that DVC's remote is not that of the object store in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erv.doctor.finding import Finding
from erv.doctor.remote_check import dvc
from erv.environment import Environment
from erv.stack.dvc_remote import write_dvc_remote


@pytest.fixture
def amazon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A clone whose keys are for Amazon S3, so that no endpoint is named."""
    monkeypatch.setenv("ERV_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "very-secret")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("['remote \"erv\"']\n    url = s3://erv-dvc\n")
    return Environment(tmp_path, s3_access_key="key", s3_secret_key="very-secret")


def found(environment: Environment) -> Finding:
    (finding,) = dvc(environment)
    return finding


def test_a_clone_without_keys_is_not_ok(amazon: Environment) -> None:
    finding = found(amazon)
    assert finding.state == "fail"
    assert finding.detail.endswith("is not that of the object store in use: it is not written yet")
    assert finding.remedy == "`erv connect` writes it"
    write_dvc_remote(amazon)
    assert found(amazon).state == "ok"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"s3_secret_key": "another-secret"}, "secret_access_key, its profile in .erv/stack/aws/credentials"),
        ({"dvc_bucket": "theirs"}, "url"),
        ({"s3_region": "eu-central-1"}, "region, its profile in .erv/stack/aws/config"),
        ({"s3_endpoint": "http://127.0.0.1:9"}, "endpointurl"),
        ({"s3_session_token": "a-token"}, "session_token, its profile in .erv/stack/aws/credentials"),
        ({"s3_ambient": True}, "access_key_id, secret_access_key, profile, configpath, credentialpath"),
    ],
)
def test_a_stale_remote_is_not_ok(amazon: Environment, changed: dict[str, str], named: str) -> None:
    write_dvc_remote(amazon)
    now = replace(amazon, **changed)  # type: ignore[arg-type]
    finding = found(now)
    assert finding.state == "fail"
    assert finding.detail.endswith(f": {named} differ")
    assert "secret" not in finding.detail.replace("secret_access_key", "")
    write_dvc_remote(now)
    assert found(now).state == "ok"


def test_keys_that_dvc_would_not_find_are_not_ok(amazon: Environment) -> None:
    write_dvc_remote(amazon)
    (amazon.stack / "aws/credentials").unlink()
    assert found(amazon).detail.endswith("its profile in .erv/stack/aws/credentials differ")
