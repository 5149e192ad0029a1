"""What a workspace talks to: ours only, whatever the user's shell says."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import (
    Environment,
    child_environment,
    isolate,
    lines_for_others,
    load_environment,
    read_stack_file,
    shell_lines,
)
from erv.errors import SettingsError, StackError
from erv.stack.dvc_remote import write_dvc_remote

FULL = Environment(
    Path("/w"),
    s3_endpoint="http://127.0.0.1:1",
    s3_access_key="ours",
    s3_secret_key="our-secret",
    mlflow_uri="http://127.0.0.1:2",
    prefect_api_url="http://127.0.0.1:3/api",
)
FOREIGN = {
    "PATH": "/bin",
    "AWS_PROFILE": "theirs",
    "AWS_SECRET_ACCESS_KEY": "theirs",
    "AWS_SESSION_TOKEN": "theirs",
    "AWS_ENDPOINT_URL": "http://theirs",
    "AWS_CA_BUNDLE": "/etc/bundle.pem",
    "MLFLOW_TRACKING_URI": "http://theirs",
    "MLFLOW_RUN_ID": "theirs",
    "PREFECT_API_URL": "http://theirs",
    "PREFECT_API_KEY": "theirs",
    "PREFECT__FLOW_RUN_ID": "the-run-of-this-process",
    "NO_PROXY": "intranet",
}


def write(folder: Path, text: str) -> Path:
    (folder / ".erv").mkdir()
    path = folder / ".erv" / "stack.env"
    path.write_text(text)
    return path


def test_process_wins_over_file(tmp_path: Path) -> None:
    write(tmp_path, "# comment\n\nERV_S3_ENDPOINT=http://file\nERV_MLFLOW_URI=http://file\n")
    environment = load_environment(tmp_path, process={"ERV_MLFLOW_URI": "http://process", "OTHER": "x"})
    assert environment.s3_endpoint == "http://file"
    assert environment.mlflow_uri == "http://process"
    assert environment.workspace == tmp_path
    assert load_environment(tmp_path, process={}).mlflow_uri == "http://file"


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("ERV_MLFLOW_URI", {"mlflow_token"}),
        ("ERV_PREFECT_API_URL", {"prefect_auth_string", "prefect_api_key", "prefect_ui_url"}),
    ],
)
def test_keys_go_to_their_own_server_only(tmp_path: Path, address: str, keys: set[str]) -> None:
    """A server that the process names doesn't get the keys of the local stack."""
    ours = replace(FULL, workspace=tmp_path, mlflow_token="m", prefect_auth_string="p", prefect_api_key="k")
    write(tmp_path, "\n".join(f"{name}={value}" for name, value in ours.variables().items()))
    same = load_environment(tmp_path, process={address: ours.variables()[address]})
    assert same == ours
    other = load_environment(tmp_path, process={address: "http://theirs"})
    gone = {name for name, value in vars(ours).items() if value and getattr(other, name) is None}
    assert gone == keys & {name for name, value in vars(ours).items() if value}
    own = load_environment(tmp_path, process={address: "http://theirs", "ERV_MLFLOW_TOKEN": "own"})
    assert own.mlflow_token == "own"


def test_nothing_configured(tmp_path: Path) -> None:
    environment = load_environment(tmp_path, process={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    assert (environment.has_storage, environment.mlflow_uri, environment.prefect_api_url) == (
        False,
        None,
        None,
    )


def test_variables_round_trip(tmp_path: Path) -> None:
    environment = replace(FULL, workspace=tmp_path, s3_ambient=True, mlflow_token="t")
    assert load_environment(tmp_path, process=environment.variables()) == environment


def test_damaged_file_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "ERV_A=1\nthis is not it\n")
    with pytest.raises(SettingsError, match=r"stack\.env, line 2: expected KEY=VALUE; delete the file"):
        read_stack_file(path)


def test_child_sees_ours_only() -> None:
    child = child_environment(FULL, FOREIGN)
    assert "theirs" not in child.values()
    assert "http://theirs" not in child.values()
    assert child["AWS_ACCESS_KEY_ID"] == "ours"
    assert child["AWS_SECRET_ACCESS_KEY"] == "our-secret"
    assert child["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"
    assert child["PREFECT_API_URL"] == "http://127.0.0.1:3/api"
    assert child["PREFECT_HOME"] == "/w/.erv/stack/prefect"
    assert child["AWS_CA_BUNDLE"] == "/etc/bundle.pem"
    assert child["PREFECT__FLOW_RUN_ID"] == "the-run-of-this-process"
    assert child["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    quiet = ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS", "HF_HUB_OFFLINE")
    assert [child[name] for name in quiet] == ["1", "true", "1", "1"]


def test_ambient_credentials_only_when_asked_for() -> None:
    ambient = Environment(Path("/w"), s3_ambient=True)
    child = child_environment(ambient, FOREIGN)
    assert child["AWS_PROFILE"] == "theirs"
    assert "MLFLOW_TRACKING_URI" not in child
    assert "AWS_PROFILE" not in child_environment(Environment(Path("/w")), FOREIGN)


def test_isolate_changes_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    isolate(FULL)
    assert "AWS_PROFILE" not in os.environ
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"


def test_shell_lines_are_shell(tmp_path: Path) -> None:
    environment = replace(FULL, workspace=tmp_path / "with space", s3_secret_key="a'b $c")
    lines = shell_lines(environment, {"AWS_PROFILE": "theirs"})
    script = "\n".join(
        [*lines, 'echo "${AWS_PROFILE-none}|$AWS_SECRET_ACCESS_KEY|$ERV_MLFLOW_URI|$PREFECT_HOME"']
    )
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"none|a'b $c|http://127.0.0.1:2|{tmp_path}/with space/.erv/stack/prefect"


def test_a_colleague_is_handed_what_servers_ask_for_and_nothing_of_this_clone(tmp_path: Path) -> None:
    mine = replace(
        FULL, workspace=tmp_path / "mine", notify_url="https://hooks.example/T0", s3_secret_key="a'b"
    )
    script = "\n".join([*lines_for_others(mine), "env"])
    said = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True, env={}).stdout
    theirs = dict(line.partition("=")[::2] for line in said.splitlines() if line.startswith("ERV_"))
    assert load_environment(tmp_path / "theirs", process=theirs) == replace(
        mine, workspace=tmp_path / "theirs", notify_url=None
    )
    assert str(tmp_path) not in script
    assert "#   ssh -N -L 1:127.0.0.1:1 -L 2:127.0.0.1:2" in script
    assert lines_for_others(Environment(tmp_path)) == []


def test_secrets_are_masked_everywhere() -> None:
    assert FULL.mask("key our-secret at http://me:word@host/x") == "key *** at http://me:***@host/x"
    assert "our-secret" not in repr(FULL)


def test_dvc_remote_keeps_other_settings(tmp_path: Path) -> None:
    environment = replace(FULL, workspace=tmp_path)
    write_dvc_remote(environment)
    assert not (tmp_path / ".dvc").exists(), "outside a DVC repository nothing is written"
    local = tmp_path / ".dvc" / "config.local"
    local.parent.mkdir()
    local.write_text("[cache]\n    type = hardlink\n['remote \"other\"']\n    url = /x\n")
    write_dvc_remote(environment)
    first = local.read_text()
    assert "type = hardlink" in first
    assert "'remote \"other\"'" in first
    assert "endpointurl = http://127.0.0.1:1" in first
    write_dvc_remote(environment)
    assert local.read_text() == first
    write_dvc_remote(replace(environment, s3_endpoint=None, s3_ambient=True))
    assert "our-secret" not in local.read_text()
    assert "endpointurl" not in local.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfeERV_MLFLOW_URI=x\n", r"not UTF-8 text \(byte 0\)"),
        (b"ERV_MLFLOW_URI=http://h\n[\n", r"line 2: expected KEY=VALUE"),
        (b"ERV_S3_SECRET_KEY=a\x00b\n", r"line 1: ERV_S3_SECRET_KEY has an unprintable character"),
        (b"ERV_MLFLOW_URI=http://[\n", r"ERV_MLFLOW_URI is not an address"),
        (b"ERV_S3_ENDPOINT=http://127.0.0.1:99999\n", r"ERV_S3_ENDPOINT is not an address"),
        (b"ERV_PREFECT_API_URL=http://\n", r"ERV_PREFECT_API_URL is not an address"),
        (b"ERV_DVC_BUCKET=erv dvc\n", r"ERV_DVC_BUCKET is not the name of a bucket"),
    ],
)
def test_a_damaged_stack_file_is_named_with_the_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / ".erv").mkdir()
    (tmp_path / ".erv/stack.env").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"stack\.env.*{said}.*; delete the file and run"):
        load_environment(tmp_path, process={})


def test_a_wrong_variable_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^the environment: ERV_MLFLOW_URI is not an address"):
        load_environment(tmp_path, process={"ERV_MLFLOW_URI": "http://h:x"})


def test_dvc_verifies_what_it_fetches(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    shared, local = tmp_path / ".dvc/config", tmp_path / ".dvc/config.local"
    environment = replace(FULL, workspace=tmp_path)
    write_dvc_remote(environment)
    assert local.read_text().count("verify = True") == 1
    # The user's own default remote too, unless they decided otherwise.
    shared.write_text("[core]\n    remote = own\n['remote \"own\"']\n    url = /x\n")
    write_dvc_remote(environment)
    assert local.read_text().count("verify = True") == 2
    local.unlink()
    shared.write_text(shared.read_text() + "    verify = false\n")
    write_dvc_remote(environment)
    assert local.read_text().count("verify = True") == 1
    for damage in (b"[core\n", b"\xff", b"core = 1\n"):
        local.write_bytes(damage)
        with pytest.raises(StackError, match=r"config\.local: damaged .*; delete it and run `erv stack up`"):
            write_dvc_remote(environment)
