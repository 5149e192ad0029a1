"""Publications, promotions and rollbacks at the same time, cut and killed, on a real MLflow server and S3."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import yaml
from jsonschema import Draft202012Validator

from erv.environment import Environment, isolate
from erv.errors import RegistryError
from erv.files import content_digest, write_text
from erv.lineage.trace import Provenance
from erv.register import publish as publishing
from erv.register import versions as registered
from erv.register.aliases import HISTORY_TAG, GatesUnmetError, promote, rollback
from erv.register.register import read_bundle, write_candidate
from erv.register.reign import reigns
from erv.register.serving_code import serving_code
from erv.register.turn import registry_turn
from erv.register.verdict import LINEAGE, Verdict
from erv.settings import Settings, load_settings
from erv.storage.lease import Lease, LeaseHeldError, LeaseLostError, leased
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from tests.conftest import ROOT
from tests.integration.proxy import Proxy
from tests.unit.register.test_register import (
    SERVING,
    WORTH,
    comparison_of,
    predictions,
    write_evaluation,
)

pytestmark = pytest.mark.integration

HOLDER = """
import sys, time
from erv.environment import load_environment
from erv.storage.lease import leased
from erv.storage.store import open_store
with leased(open_store(load_environment(sys.argv[1])), sys.argv[2], expiry=float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""
PUBLISHER = """
import os, signal, sys
from pathlib import Path
import mlflow
from erv.environment import isolate, load_environment
from erv.register.publish import publish
from erv.settings import load_settings
mlflow.register_model = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)  # after the run was opened
environment = load_environment(".")
isolate(environment)
publish(Path("candidate"), environment, load_settings(), by="test")
"""
CARDLESS = PUBLISHER.replace(
    "mlflow.register_model = lambda *a, **k: ",
    "register = mlflow.register_model\nmlflow.register_model = lambda *a, **k: register(*a, **k) and ",
)
PUBLISH_HERE = """
from erv.environment import isolate, load_environment
from erv.register.verdict import LINEAGE, Verdict
from erv.register.publish import publish
from erv.settings import load_settings
environment = load_environment(".")
isolate(environment)
lineage = lambda number: Verdict(LINEAGE, outcome="pass")
result = publish("candidate", environment, load_settings(), by="test", lineage=lineage)
print("\\n".join(result.lines()))
"""


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    relay = Proxy(str(stack.mlflow_uri))
    yield relay
    relay.close()


@pytest.fixture
def workspace(stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A folder with a candidate, and a registered model of its own on the shared servers."""
    monkeypatch.chdir(tmp_path)
    name = f"model-{uuid.uuid4().hex[:8]}"
    text = (ROOT / "params.yaml").read_text().replace("emotion-policy", name)
    write_text(text, tmp_path / "params.yaml")
    environment = replace(stack, workspace=tmp_path, mlflow_experiment=name)
    lines = [f"{key}={value}" for key, value in environment.variables().items()]
    write_text("\n".join(lines) + "\n", tmp_path / ".erv/stack.env")
    write_text('{"model_type": "humanomni"}', tmp_path / "policy/config.json")
    write_text("{}", tmp_path / "verifier/verifier.json")
    panel = {"lexical": {"digest": "j", "worth": WORTH}}
    mine, base = predictions(54, 55), predictions(40, 20)
    for policy, rows in {"erv": mine, "r1_omni": base}.items():
        write_evaluation(tmp_path / "eval" / policy, rows, judge={"digest": "j"}, judges=panel, decoding={})
    write_text(json.dumps(comparison_of(sft=base, r1_omni=base, erv=mine)), tmp_path / "comparison.json")
    write_candidate(
        tmp_path / "candidate",
        policy=tmp_path / "policy",
        verifier=tmp_path / "verifier",
        evaluations=tmp_path / "eval",
        comparison=tmp_path / "comparison.json",
        serving=SERVING,
        settings=settings(environment).register_,
        seed=0,
    )
    out = {"path": "candidate", "md5": content_digest(tmp_path / "candidate")}
    lock = {"schema": "2.0", "stages": {"register": {"cmd": "write it", "outs": [out]}}}
    write_text(yaml.safe_dump(lock), tmp_path / "dvc.lock")
    isolate(environment)
    return environment


def settings(environment: Environment) -> Settings:
    return load_settings(environment.workspace / "params.yaml")


def publish(environment: Environment) -> publishing.PublishResult:
    return publishing.publish(
        environment.workspace / "candidate", environment, settings(environment), by="test", lineage=holds
    )


def holds(number: str) -> Verdict:
    """What these workspaces have no pipeline for."""
    return Verdict(LINEAGE, outcome="pass")


def versions(environment: Environment) -> list[str]:
    name = settings(environment).register_.model_name
    return [str(version.version) for version in registered.versions(client_of(environment), name)]


def history(environment: Environment) -> str:
    name = settings(environment).register_.model_name
    return client_of(environment).get_registered_model(name).tags[HISTORY_TAG]


def add_version(environment: Environment, bundle_hash: str, code: str = "other") -> str:
    """A version without a model behind it."""
    client, name = client_of(environment), settings(environment).register_.model_name
    tags = {registered.HASH_TAG: bundle_hash, registered.CODE_TAG: code}
    made = client.create_model_version(name, "s3://erv-mlflow/none", tags=tags)
    return str(made.version)


@pytest.mark.slow
def test_two_publications_at_once_make_one_version(workspace: Environment) -> None:
    (workspace.workspace / "src").symlink_to(ROOT / "src")  # the code of another folder is refused
    params = workspace.workspace / "params.yaml"  # nothing of this workspace is in DVC's remote
    params.write_text(params.read_text().replace("require_lineage: true", "require_lineage: false"))
    # Two processes, because MLflow keeps the run that is open in a variable of the process.
    command = [
        sys.executable,
        "-c",
        "from erv.cli import main; main()",
        "publish",
        "--candidate",
        "candidate",
    ]
    both = [
        subprocess.Popen(
            command,
            cwd=workspace.workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    output = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], output
    assert versions(workspace) == ["1"], output
    assert sum("version 1 registered" in text for text in output) == 1
    assert sum("version 1 was already registered" in text for text in output) == 1
    assert history(workspace) == "1"


@pytest.mark.slow
def test_of_two_versions_of_a_bundle_the_lowest_stays(workspace: Environment) -> None:
    """What two machines make that can't see each other's lease, or one that was killed in between."""
    first = publish(workspace)
    bundle = read_bundle(workspace.workspace / "candidate")
    copy = add_version(workspace, bundle.hash, serving_code(bundle.folder))
    other = add_version(workspace, "other")
    for version in (other, copy):
        promote(version, workspace, settings(workspace), by="test", lineage=holds, reason="test", force=True)
    assert history(workspace) == "1,3,2"
    again = publish(workspace)
    assert (again.version, again.copies, again.new) == (first.version, (copy,), False)
    assert f"deleted version {copy}: a second registration of this bundle" in again.lines()
    assert versions(workspace) == ["1", other]
    assert history(workspace) == "1,3,1"
    assert again.champion == "1", "the alias went with it"


def serve_by(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the code that answers had been edited."""
    monkeypatch.setattr(publishing, "serving_code", lambda bundle: code)


@pytest.mark.slow
def test_other_serving_code_makes_another_version(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(workspace)
    serve_by("edited", monkeypatch)
    second = publish(workspace)
    assert (first.version, second.version, second.new, second.siblings) == ("1", "2", True, ("1",))
    assert "same bundle as version 1, but other code answers" in second.lines()
    assert second.champion == "2", "it takes the place of the same bundle"
    assert publish(workspace).new is False
    assert versions(workspace) == ["1", "2"]


def test_code_that_is_in_no_commit_takes_no_place_by_itself(workspace: Environment) -> None:
    """It took that of the champion, and was served, with the next publication."""
    tree = workspace.workspace
    shutil.copy(ROOT / "pyproject.toml", tree)
    shutil.copytree(ROOT / "src/erv", tree / "src/erv", ignore=shutil.ignore_patterns("__pycache__"))

    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *words], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()

    def head() -> str:
        return git("rev-parse", "HEAD")

    def commit() -> None:
        git("add", "src")
        git("commit", "-qm", "code")

    def published() -> str:
        command = [sys.executable, "-c", PUBLISH_HERE]
        variables = {**os.environ, "PYTHONPATH": str(tree / "src")}
        done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    commit()
    assert "all gates hold: it is the champion" in published()
    first = head()
    with (tree / "src/erv/answering/predictor.py").open("a") as stream:
        stream.write("\nADDED = 1\n")
    said = published()
    assert "version 2 registered; alias challenger\n" in said
    obstacle = "fail: serving code: src/erv/answering/predictor.py can't be found in the commit"
    assert obstacle in said
    with pytest.raises(GatesUnmetError, match=f"did not pass 1 of its gates.*\n  {obstacle}"):
        promote("2", workspace, settings(workspace), by="test", lineage=holds)
    client, name = client_of(workspace), settings(workspace).register_.model_name

    def commit_of(number: str) -> str | None:
        tags: dict[str, str] = client.get_model_version(name, number).tags
        return tags.get(registered.CODE_COMMIT_TAG)

    assert (commit_of("1"), commit_of("2")) == (first, None)
    schema = json.loads((ROOT / "src/erv/register/schemas/version.json").read_text())
    for number, recorded in (("1", first), ("2", None)):
        record = mlflow.artifacts.load_dict(f"models:/{name}/{number}/lineage.json")
        assert record["serving_commit"] == recorded
        Draft202012Validator(schema).validate(record)
    commit()
    said = published()
    assert "version 2 was already registered; alias challenger, champion\n" in said
    assert "all gates hold: it is the champion" in said
    assert commit_of("2") == head() != first, "it is in no other"
    assert [reign.commit for reign in reigns(client, name)] == [first, head()]
    trace = Provenance(workspace, settings(workspace)).trace("champion")
    assert trace.values["serving_commit"] == head()
    assert any(re.fullmatch(rf"serving code [0-9a-f]{{64}}, in git commit {head()}", f) for f in trace.facts)
    git("commit", "--allow-empty", "-qm", "more")
    published()
    assert commit_of("2") != head(), "the commit that was found first stays"


@pytest.mark.slow
def test_other_serving_code_undoes_no_rollback(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(workspace)
    other = add_version(workspace, "other")
    promote(other, workspace, settings(workspace), by="test", lineage=holds, reason="test", force=True)
    for part, answer in {"_opponent": None, "_gate": ()}.items():  # that version has no answers
        monkeypatch.setattr(publishing, part, lambda *arguments, answer=answer: answer)
    serve_by("edited", monkeypatch)
    again = publish(workspace)
    assert (again.version, again.champion) == ("3", other)
    assert "`erv promote 3` makes it champion" in again.lines()[-1]


def test_other_serving_code_undoes_no_rollback_from_a_version_that_was_deleted(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its new number, it had never been champion."""
    publish(workspace)
    serve_by("edited", monkeypatch)
    assert publish(workspace).champion == "2"
    rollback(workspace, settings(workspace), by="test", lineage=holds)
    client_of(workspace).delete_model_version(settings(workspace).register_.model_name, "2")
    again = publish(workspace)
    assert (again.version, again.new, again.champion) == ("3", True, "1")


def description(environment: Environment) -> str:
    name = settings(environment).register_.model_name
    return str(client_of(environment).get_model_version(name, "1").description)


def test_the_description_has_the_verdicts_of_now(workspace: Environment) -> None:
    """It had those of the first publication for ever."""
    away = Verdict(LINEAGE, outcome="can't tell", reason="S3 is\n- away")
    folder = workspace.workspace / "candidate"
    publishing.publish(
        folder, workspace, settings(workspace), by="test", lineage=lambda number: replace(away)
    )
    card = (folder / "card.md").read_text()
    assert "- can't tell: lineage: S3 is - away\n\n## Limits" in description(workspace)
    named = settings(workspace).register_.model_name
    noted = description(workspace).replace("## Limits\n", "Ann: good on calls.\n\n## Limits\n")
    client_of(workspace).update_model_version(named, "1", noted)
    result = publish(workspace)
    gates = "".join(f"- {verdict.text()}\n" for verdict in result.verdicts)
    assert result.passed
    before, _, after = card.partition("## Gates\n\n")
    limits = after[after.index("## Limits") :]
    assert description(workspace) == f"{before}## Gates\n\n{gates}\nAnn: good on calls.\n\n{limits}"
    client_of(workspace).update_model_version(named, "1", "Ann's own words")
    publish(workspace)
    assert description(workspace) == "Ann's own words"


def test_a_version_whose_publisher_was_killed_gets_its_card(workspace: Environment) -> None:
    killed = subprocess.run([sys.executable, "-c", CARDLESS], cwd=workspace.workspace, check=False)
    assert killed.returncode == -9
    assert versions(workspace) == ["1"]
    open_store(workspace).delete(lease_uri(workspace))  # or we would wait a minute for it to expire
    result = publish(workspace)
    assert not result.new
    gates = "".join(f"- {verdict.text()}\n" for verdict in result.verdicts)
    assert f"\n## Gates\n\n{gates}\n## Limits\n" in description(workspace)


@pytest.mark.slow
def test_no_promotion_is_lost(workspace: Environment) -> None:
    publish(workspace)
    numbers = [add_version(workspace, str(n)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda number: promote(
                    number,
                    workspace,
                    settings(workspace),
                    by="test",
                    lineage=holds,
                    reason="test",
                    force=True,
                ),
                numbers,
            )
        )
    found = history(workspace).split(",")
    assert found[0] == "1"
    assert sorted(found[1:]) == sorted(numbers)
    for before in reversed(found[:-1]):
        assert f"version {before} is the champion again" in rollback(
            workspace, settings(workspace), by="test", lineage=holds
        )


@pytest.mark.slow
def test_a_publication_through_a_bad_connection(workspace: Environment, proxy: Proxy) -> None:
    through = replace(workspace, mlflow_uri=proxy.endpoint)
    isolate(through)
    proxy.cut_share = 0.1
    result = publish(through)
    promote(
        add_version(workspace, "other"),
        through,
        settings(workspace),
        by="test",
        lineage=holds,
        reason="test",
        force=True,
    )
    rollback(through, settings(workspace), by="test", lineage=holds)
    assert proxy.faults > 0
    assert (result.version, history(workspace)) == ("1", "1")


@pytest.mark.slow
def test_the_next_publication_closes_the_run_of_a_killed_one(workspace: Environment) -> None:
    killed = subprocess.run([sys.executable, "-c", PUBLISHER], cwd=workspace.workspace, check=False)
    assert killed.returncode == -9
    client = client_of(workspace)
    open_store(workspace).delete(lease_uri(workspace))  # or we would wait a minute for it to expire
    publish(workspace)
    (experiment,) = [client.get_experiment_by_name(workspace.mlflow_experiment)]
    assert experiment is not None
    states = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    assert sorted(states) == ["FINISHED", "KILLED"]


def lease_uri(environment: Environment) -> str:
    return f"s3://{environment.artifact_bucket}/.leases/{settings(environment).register_.model_name}"


def test_one_holds_the_lease_and_a_killed_one_loses_it(stack: Environment) -> None:
    store, uri = open_store(stack), f"s3://{stack.artifact_bucket}/.leases/{uuid.uuid4().hex}"
    command = [sys.executable, "-c", HOLDER, str(stack.workspace), uri, "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeldError, match=f"held by process {holder.pid} on "):
            Lease(store, uri, 4).take()
        holder.kill()
    with leased(store, uri, patience=30, expiry=4) as lease:
        lease.renew()
        store.write(b"{}", uri)  # as another process that took it over would
        with pytest.raises(LeaseLostError, match="another one took its turn"):
            lease.renew()
    assert store.exists(uri), "what another process holds is not released"


def test_one_of_many_gets_the_lease(stack: Environment) -> None:
    store, uri = open_store(stack), f"s3://{stack.artifact_bucket}/.leases/{uuid.uuid4().hex}"
    together, taken = threading.Barrier(8), []

    def take(lease: Lease) -> None:
        together.wait()
        try:
            lease.take()
        except LeaseHeldError:
            return
        taken.append(lease)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [Lease(store, uri) for _ in range(8)]))
    (lease,) = taken
    lease.release()
    assert not store.exists(uri)


def test_a_turn_that_never_comes(workspace: Environment) -> None:
    elsewhere = replace(workspace, workspace=workspace.workspace / "elsewhere")
    check: Callable[[], None]
    with registry_turn(workspace, "m") as check:
        check()
        for environment in (workspace, elsewhere):
            with (
                pytest.raises(RegistryError, match=r"m: another process has been changing the registry"),
                registry_turn(environment, "m", patience=1),
            ):
                pass


@pytest.mark.slow
def test_artifacts_that_cannot_be_read_now_are_not_broken(workspace: Environment, proxy: Proxy) -> None:
    """MLflow's server answers so when its disk for temporary files is full, or S3 is away."""
    publish(workspace)
    through = replace(workspace, mlflow_uri=proxy.endpoint)
    isolate(through)
    proxy.refused = {"mlflow-artifacts/artifacts": "no space"}
    node = Provenance(through, settings(workspace)).trace("1")
    assert [link.ok for link in node.links] == [None, None]
    assert all("can't be read now" in link.text() for link in node.links)
    proxy.refused = {}
    whole = Provenance(through, settings(workspace)).trace("1")
    assert whole.links[0].ok is True
    client, store = client_of(workspace), open_store(workspace)
    experiment = client.get_experiment_by_name(workspace.mlflow_experiment)
    assert experiment is not None
    for item in store.list(f"s3://{workspace.artifact_bucket}/{experiment.experiment_id}/models"):
        store.delete(item.uri)
    lost = Provenance(through, settings(workspace)).trace("1")
    assert lost.links[0].ok is False
