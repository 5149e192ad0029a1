"""A clone uses its own stack or servers of others, never both; the change is asked for, said, and loses"
" nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from erv.doctor.preflight import check
from erv.environment import clone_state, load_environment, own_environment
from erv.errors import RegistryError
from erv.lineage.complete import store_outputs
from erv.pipeline import PipelineError
from erv.stack import clean
from erv.storage.store import open_store
from tests.integration.scratch import Scratch
from tests.integration.test_connect import ERV, clone, colleague, run, variables

pytestmark = pytest.mark.integration

__all__ = ["clone", "colleague"]

FILES = (".erv/stack.env", ".erv/connected.env", ".erv/was_connected.env", ".dvc/config.local")


@pytest.fixture
def bare(colleague: Scratch) -> dict[str, str]:
    """A shell without any of the team's variables."""
    return colleague.variables()


@pytest.fixture
def own(clone: Path, bare: dict[str, str]) -> Iterator[Path]:
    """A clone with a stack of its own: here S3 alone, which starts fast."""
    started = run(clone, bare, *ERV, "stack", "up", "s3")
    assert started.returncode == 0, started.stderr
    yield clone
    clean(clone)


@pytest.fixture
def connected(colleague: Scratch, clone: Path) -> Path:
    said = run(clone, variables(colleague), *ERV, "connect")
    assert said.returncode == 0, said.stderr
    return clone


def written(clone: Path) -> dict[str, bytes | None]:
    return {name: (clone / name).read_bytes() if (clone / name).is_file() else None for name in FILES}


def refused(said: subprocess.CompletedProcess[str]) -> str:
    assert said.returncode == 1, said.stdout
    assert said.stderr.startswith("error: ")
    assert len(said.stderr.splitlines()) == 1
    return said.stderr.removeprefix("error: ").strip()


def test_a_clone_with_its_own_stack_connects_once_that_is_stopped(
    colleague: Scratch, own: Path, bare: dict[str, str]
) -> None:
    team = colleague.environment
    store = open_store(load_environment(own, process={}))
    store.write(b"mine", f"s3://{team.raw_bucket}/mine")
    before = written(own)
    said = refused(run(own, variables(colleague), *ERV, "connect"))
    assert said == (
        "this clone's own stack is running (s3); `erv stack down` stops it and keeps what it has stored, then"
        " run `erv connect` again"
    )
    # In a shell that names nothing, its own S3 was taken for the team's.
    said = refused(run(own, bare, *ERV, "connect"))
    assert "ERV_S3_SECRET_KEY not set" in said
    assert said.endswith("; this clone uses its own stack, and goes on doing so")
    mine = {**bare, **own_environment(own).variables()}
    assert "are this clone's own, and `erv connect` is for" in refused(run(own, mine, *ERV, "connect"))
    assert run(own, bare, *ERV, "stack", "down").stdout == "stopped s3\n"

    waits = own / ".erv/spool/one/run.json"
    waits.parent.mkdir(parents=True)
    waits.write_text("{}")
    said = refused(run(own, variables(colleague), *ERV, "connect"))
    assert said.startswith(
        "1 run of a finished stage waits in .erv/spool for this clone's own MLflow, and would"
    )
    waits.unlink()
    assert written(own) == before
    assert clone_state(own) == "own stack"

    said = run(own, variables(colleague), *ERV, "connect").stdout.splitlines()[-1]
    assert said == (
        "this clone used its own stack; it now uses the servers above, and its own stack is kept in"
        " .erv/stack (`erv stack up --own` returns to it)"
    )
    # The next shell reads nothing of its own stack, which is still there.
    assert clone_state(own) == "connected"
    assert load_environment(own, process={}).s3_endpoint is None
    assert (own / ".erv/stack.env").read_bytes() == before[".erv/stack.env"]
    pulled = run(own, bare, "-m", "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr
    told = run(own, bare, *ERV, "doctor").stdout
    assert "erv stack up" not in told
    assert "make data" not in told
    assert f"connected to S3 at {team.s3_endpoint}" in told
    again = run(own, variables(colleague), *ERV, "connect").stdout
    assert "this clone" not in again


def test_a_connected_clone_stays_connected_unless_asked(
    colleague: Scratch, connected: Path, bare: dict[str, str]
) -> None:
    before = written(connected)
    for shell in (bare, variables(colleague)):
        said = refused(run(connected, shell, *ERV, "stack", "up"))
        assert said.startswith(
            f"this clone is connected to S3 at {colleague.environment.s3_endpoint}, MLflow at"
        )
        assert "`erv stack up --own` gives it a stack of its own in their place" in said
    part = refused(run(connected, bare, *ERV, "stack", "up", "--own", "s3"))
    assert part.endswith(
        "so a part of its own stack can't be used; `erv stack up --own` without names starts all of it"
    )
    waits = connected / ".erv/spool/one/run.json"
    waits.parent.mkdir(parents=True)
    waits.write_text("{}")
    said = refused(run(connected, bare, *ERV, "stack", "up", "--own"))
    assert (
        f"for MLflow at {colleague.environment.mlflow_uri}, and would reach another; `erv connect` delivers"
        in said
    )
    waits.unlink()
    assert written(connected) == before
    assert not (connected / ".erv/stack/s3").exists()
    told = run(connected, bare, *ERV, "stack", "status")
    assert told.returncode == 0
    assert told.stderr.strip() == "this clone is connected to servers of others, and runs none of its own"
    assert told.stdout.splitlines()[0].split() == ["S3", "answers", colleague.environment.s3_endpoint]
    # Its own stack can be deleted without cutting DVC off from the team's.
    assert run(connected, bare, *ERV, "stack", "clean", "--yes").returncode == 0
    pulled = run(connected, bare, "-m", "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr


def test_a_shell_that_names_servers_of_others_starts_no_stack(colleague: Scratch, clone: Path) -> None:
    said = refused(run(clone, variables(colleague), *ERV, "stack", "up", "s3"))
    assert said.startswith(
        f"this shell's ERV_S3_* variables name {colleague.environment.s3_endpoint}, which is not"
    )
    assert written(clone) == dict.fromkeys(FILES)


@pytest.mark.slow
def test_the_way_to_a_stack_of_its_own_and_back(
    colleague: Scratch, connected: Path, bare: dict[str, str]
) -> None:
    try:
        said = run(connected, variables(colleague), *ERV, "stack", "up", "--own", seconds=300)
        assert said.returncode == 0, said.stderr
        assert "This clone was connected to S3 at" in said.stdout
        assert said.stdout.rstrip().endswith("To return to them: `erv stack down`, then `erv connect`.")
        assert (
            "warning: ERV_S3_ENDPOINT, ERV_MLFLOW_URI, ERV_PREFECT_API_URL override the stack in"
            in said.stderr
        )
        assert clone_state(connected) == "own stack"
        mine = load_environment(connected, process={})
        assert mine.s3_endpoint not in (None, colleague.environment.s3_endpoint)
        assert (mine.s3_endpoint or "") in (connected / ".dvc/config.local").read_text()
        # What it was connected to isn't forgotten.
        lacking = run(connected, bare, *ERV, "connect")
        assert lacking.returncode == 1
        assert lacking.stderr.startswith("error: this clone was connected to S3 at")
        assert f"  export ERV_S3_ENDPOINT={colleague.environment.s3_endpoint}" in lacking.stderr.splitlines()
        assert run(connected, bare, *ERV, "stack", "down").returncode == 0
        assert run(connected, variables(colleague), *ERV, "connect").returncode == 0
        assert clone_state(connected) == "connected"
        assert not (connected / ".erv/was_connected.env").exists()
        assert (colleague.environment.s3_endpoint or "") in (connected / ".dvc/config.local").read_text()
    finally:
        clean(connected)


def test_another_team_is_named(colleague: Scratch, connected: Path) -> None:
    record = connected / ".erv/connected.env"
    here = colleague.environment.s3_endpoint or ""
    record.write_text(record.read_text().replace(here, "http://s3.elsewhere"))
    said = run(connected, variables(colleague), *ERV, "connect").stdout.splitlines()[-1]
    assert said.startswith("this clone was connected to S3 at http://s3.elsewhere, MLflow at")
    assert said.endswith("; it now uses the servers above")


def test_a_run_does_not_point_the_remote_elsewhere(colleague: Scratch, connected: Path) -> None:
    """In a shell that names another bucket than the clone is connected to, it did so unasked."""
    before = written(connected)
    said = run(connected, variables(colleague, ERV_DVC_BUCKET="erv-mlflow"), *ERV, "run", "make@a")
    assert said.returncode == 1
    assert (
        "this clone is connected to the servers in .erv/connected.env, but this shell names others:"
        f" ERV_DVC_BUCKET is erv-mlflow, there {colleague.environment.dvc_bucket}; set ERV_DVC_BUCKET as"
        " there, or run `erv connect` to change to those" in said.stderr
    )
    assert written(connected) == before


def test_nor_does_it_in_a_clone_with_its_own_stack(colleague: Scratch) -> None:
    """It exited with 0, and later `dvc push` went to the other bucket, too."""
    before = written(colleague.folder)
    other = {**colleague.variables(), "ERV_DVC_BUCKET": "erv-mlflow"}
    said = run(colleague.folder, other, *ERV, "run", "make@a")
    assert said.returncode == 1
    assert (
        "this clone uses its own stack, in .erv/stack.env, but this shell names other servers: ERV_DVC_BUCKET"
        f" is erv-mlflow, there {colleague.environment.dvc_bucket}; unset ERV_DVC_BUCKET where this was"
        " started, or run `erv connect` to use servers of others" in said.stderr
    )
    assert written(colleague.folder) == before


def test_nor_does_a_publication(colleague: Scratch) -> None:
    before = written(colleague.folder)
    elsewhere = replace(colleague.environment, s3_endpoint="http://127.0.0.1:9")
    with pytest.raises(
        RegistryError, match=r"^nothing was registered, .+: this clone uses its own stack, in"
    ):
        store_outputs(elsewhere, {}, (), print)
    assert written(colleague.folder) == before


def test_commands_take_no_registry_of_another_origin(colleague: Scratch, own: Path) -> None:
    """After `eval "$(erv stack env)"` elsewhere, `erv rollback` here changed the champion there."""
    other = {**colleague.variables(), "ERV_MLFLOW_URI": colleague.environment.mlflow_uri or ""}
    for command in (["rollback"], ["promote", "1"], ["publish"], ["import", "folder"], ["traces"], ["run"]):
        said = refused(run(own, other, *ERV, *command))
        assert said == (
            "this clone uses its own stack, in .erv/stack.env, but this shell names other servers:"
            f" ERV_MLFLOW_URI is {colleague.environment.mlflow_uri}, there not set; unset ERV_MLFLOW_URI"
            " where this was started, or run `erv connect` to use servers of others"
        ), command


def test_nothing_is_registered_from_a_shell_without_the_store(colleague: Scratch, connected: Path) -> None:
    """A version was registered whose outputs no colleague could read."""
    named = {name: value for name, value in variables(colleague).items() if not name.startswith("ERV_S3_")}
    team = load_environment(connected, process=named)
    said: list[str] = []
    with pytest.raises(
        RegistryError, match=r"^nothing was registered, .+: this clone is connected to S3 at http"
    ):
        store_outputs(team, {}, (), said.append)
    for command in (["publish"], ["rollback"], ["run"]):
        assert refused(run(connected, named, *ERV, *command)).startswith(
            f"this clone is connected to S3 at {colleague.environment.s3_endpoint}: set ERV_S3_ENDPOINT="
        ), command
    # No record of `erv connect`, but DVC's remote and its keys.
    (connected / ".erv/connected.env").unlink()
    with pytest.raises(RegistryError, match=r"DVC's remote is s3://.+, but no ERV_S3_"):
        store_outputs(team, {}, (), said.append)
    with pytest.raises(PipelineError, match=r"DVC's remote is s3://.+, but no ERV_S3_"):
        check(team, [])
    assert said == []
    # A clone that never had a store says so, and goes on.
    (connected / ".dvc/config.local").unlink()
    store_outputs(team, {}, (), said.append)
    assert said == [
        "no object store is configured: outputs stay here, and nobody else can verify the version"
    ]


def test_outputs_go_to_a_remote_of_the_user_s_own(
    colleague: Scratch, connected: Path, bare: dict[str, str]
) -> None:
    assert run(connected, bare, "-m", "dvc", "pull").returncode == 0
    for name in (".erv/connected.env", ".dvc/config.local"):
        (connected / name).unlink()
    remote = connected.parent / "remote"
    assert (
        run(connected, bare, "-m", "dvc", "remote", "add", "--local", "-d", "mine", str(remote)).returncode
        == 0
    )
    store_outputs(load_environment(connected, process={}), {}, (), print)
    assert list(remote.glob("files/md5/*/*"))


def test_a_stage_does_not_go_untracked_for_hours(
    colleague: Scratch, connected: Path, bare: dict[str, str]
) -> None:
    """In a shell without the team's variables, it trained and left no curve."""
    uri = colleague.environment.mlflow_uri
    assert run(connected, bare, "-m", "dvc", "pull").returncode == 0
    said = run(connected, bare, "-m", "dvc", "repro", "--force", "--single-item", "last")
    assert said.returncode != 0
    assert "INFO begins" not in said.stderr
    assert (
        f"error: last: this clone is connected to MLflow at {uri}: set ERV_MLFLOW_URI={uri} and"
        in said.stderr
    )
    unnamed = {name: value for name, value in variables(colleague).items() if "MLFLOW_URI" not in name}
    with pytest.raises(PipelineError, match="this clone is connected to MLflow at http"):
        check(load_environment(connected, process=unnamed), [])
    said = run(connected, variables(colleague), "-m", "dvc", "repro", "--force", "--single-item", "last")
    assert "INFO begins" in said.stderr, said.stderr


def test_the_sample_goes_into_no_bucket_of_others_unasked(colleague: Scratch, clone: Path) -> None:
    store = open_store(colleague.environment)
    before = [info.uri for info in store.list("s3://erv-raw/")]
    upload = (*ERV, "sample-data", "--size", "tiny", "--skip-base", "--upload")
    said = refused(run(clone, variables(colleague), *upload))
    assert said == (
        f"the sample corpus would go into the bucket erv-raw at {colleague.environment.s3_endpoint}, which is"
        " not this clone's own; nothing was written. If your team wants it there, say --shared"
    )
    assert run(clone, variables(colleague), *ERV, "connect").returncode == 0
    assert "which is not this clone's own" in refused(run(clone, colleague.variables(), *upload))
    assert not (clone / ".erv/sample").exists()
    assert [info.uri for info in store.list("s3://erv-raw/")] == before
