"""The policies and rules of infra/terraform on a real SeaweedFS: what each user can do, and can't.

SeaweedFS takes no policies of users, so each is given to the buckets, for that user.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment, child_environment
from erv.errors import StorageError
from erv.remote.board import Board
from erv.stack import connect, services
from erv.stack.ports import choose
from erv.storage.errors import error_code
from erv.storage.lease import leased
from erv.storage.store import Store, open_store
from tests.integration.scratch import wait_until
from tests.support.terraform import MISSING, installed, values

pytestmark = [pytest.mark.integration, pytest.mark.skipif(not installed(), reason=MISSING)]

USERS = ("person", "worker", "mlflow")


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    what = "{policies = local.policies, lifecycle = local.lifecycle, buckets = local.buckets}"
    found: dict[str, Any] = values(tmp_path_factory.mktemp("terraform"), what)
    return found


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, decided: dict[str, Any]) -> Iterator[Environment]:
    """A store with an account per user, none of which may do anything by itself, and the three buckets."""
    workspace = tmp_path_factory.mktemp("store")
    ports = choose(workspace, services.PORTS["s3"], {})
    environment = Environment(
        workspace,
        s3_endpoint=f"http://127.0.0.1:{ports['s3']}",
        s3_access_key="admin",
        s3_secret_key="of-admin",
    )
    service = services.build(environment, ports)["s3"]
    (service.folder / "data").mkdir(parents=True)
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": f"of-{name}"}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"] if name == "admin" else [],
        }
        for name in ("admin", *USERS)
    ]
    (service.folder / "s3.json").write_text(json.dumps({"identities": identities}))
    log = workspace / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            service.command, env=dict(service.environment), cwd=service.folder, stdout=stream, stderr=stream
        )
    try:
        store = open_store(environment, patient=False)

        def works() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                store.ensure_bucket("erv-raw", versioning=True)
            except StorageError:
                return False
            return True

        wait_until(works, 60)
        for name in ("erv-dvc", "erv-mlflow"):
            store.ensure_bucket(name, versioning=True)
        for key, bucket in decided["buckets"].items():
            _allow(environment, key, bucket, decided["policies"])
        yield environment
    finally:
        server.kill()
        server.wait()


def _client(environment: Environment) -> Any:
    return open_store(environment)._client


def _allow(environment: Environment, key: str, bucket: str, policies: dict[str, Any]) -> None:
    statements = []
    for user, policy in policies.items():
        for item in policy["Statement"]:
            here = [arn for arn in item["Resource"] if arn.split(":")[-1].split("/")[0] == bucket]
            if here:
                who = {"AWS": [f"arn:aws:iam::000000000000:user/{user}"]}
                sid = f"{item['Sid']}{user}"
                statements.append({**item, "Resource": here, "Principal": who, "Sid": sid})
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    _client(environment).put_bucket_policy(Bucket=bucket, Policy=text)


def as_user(admin: Environment, name: str) -> Environment:
    return dataclasses.replace(admin, s3_access_key=name, s3_secret_key=f"of-{name}")


def store_of(admin: Environment, name: str) -> Store:
    return open_store(as_user(admin, name), patient=False)


@pytest.fixture
def clip(admin: Environment) -> tuple[str, str]:
    """A raw file and its version."""
    uri = "s3://erv-raw/mafw/clip.mp4"
    store = open_store(admin)
    store.write(b"a clip", uri)
    (info,) = store.list("s3://erv-raw/mafw")
    assert info.version_id
    return uri, info.version_id


def refused(call: Callable[[], object]) -> bool:
    with pytest.raises(StorageError) as found:
        call()
    return error_code(found.value.__cause__) in ("AccessDenied", "403")


def test_a_worker_can_do_all_that_a_stage_needs(
    admin: Environment, clip: tuple[str, str], tmp_path: Path
) -> None:
    uri, version = clip
    store = store_of(admin, "worker")
    assert store.versioned("erv-raw")
    assert [info.version_id for info in store.list("s3://erv-raw/mafw")] == [version]
    assert store.read(uri, version) == b"a clip"
    (tmp_path / "large").write_bytes(bytes(20_000_000))
    store.upload(tmp_path / "large", "s3://erv-dvc/files/large")  # in parts
    store.download("s3://erv-dvc/files/large", tmp_path / "again")
    board = Board(store, "erv-dvc", "0" * 64)
    board.begin(1, {"stage": "grpo@erv"})
    board.beat(1, {"count": 1})
    board.finish(1, {"entry": {}})
    board.tidy()
    assert "can be written to and read" in connect._storage(as_user(admin, "worker"))


def test_dvc_pushes_and_fetches_as_a_worker(admin: Environment, tmp_path: Path) -> None:
    worker = dataclasses.replace(as_user(admin, "worker"), workspace=tmp_path)
    (tmp_path / "model.bin").write_bytes(b"weights")
    variables = child_environment(worker)

    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    dvc("init", "--no-scm", "-q")
    dvc("remote", "add", "-d", "store", "s3://erv-dvc/remote-of-dvc")
    dvc("remote", "modify", "store", "endpointurl", str(admin.s3_endpoint))
    dvc("add", "-q", "model.bin")
    assert "1 file pushed" in dvc("push")
    (tmp_path / "model.bin").unlink()
    subprocess.run(["rm", "-r", str(tmp_path / ".dvc/cache")], check=True)
    dvc("pull", "-q")
    assert (tmp_path / "model.bin").read_bytes() == b"weights"


def test_a_worker_can_change_no_raw_data_no_artifact_and_no_bucket(
    admin: Environment, clip: tuple[str, str]
) -> None:
    uri, version = clip
    store = store_of(admin, "worker")
    assert refused(lambda: store.write(b"another clip", uri))
    assert refused(lambda: store.delete(uri))
    assert refused(lambda: store.delete(uri, version))
    assert refused(lambda: store.write(b"", "s3://erv-mlflow/1/model"))
    open_store(admin).write(b"", "s3://erv-mlflow/1/model")
    assert refused(lambda: store.read("s3://erv-mlflow/1/model"))
    assert refused(lambda: store.ensure_bucket("erv-other"))
    assert open_store(admin).read(uri, version) == b"a clip"


def test_no_user_can_delete_a_version(admin: Environment, clip: tuple[str, str]) -> None:
    uri, version = clip
    for user in USERS:
        assert refused(lambda user=user: store_of(admin, user).delete(uri, version)), user  # type: ignore[misc]
    store_of(admin, "person").delete(uri)  # leaves the version
    assert store_of(admin, "person").read(uri, version) == b"a clip"


def test_a_person_pins_data_and_takes_turns_at_the_registry(
    admin: Environment, clip: tuple[str, str], tmp_path: Path
) -> None:
    store = store_of(admin, "person")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.mp4").write_bytes(b"a")
    assert store.mirror_tree(tmp_path / "tree", "s3://erv-raw/new")["stored"] == 1
    with leased(store, "s3://erv-mlflow/.leases/emotion-policy", patience=5, who="ann"):
        pass
    assert refused(lambda: store.write(b"", "s3://erv-mlflow/1/model"))
    assert "can be written to and read" in connect._storage(as_user(admin, "person"))


def test_mlflow_reaches_its_artifacts_alone(admin: Environment, clip: tuple[str, str]) -> None:
    store = store_of(admin, "mlflow")
    store.write(b"model", "s3://erv-mlflow/2/model")
    assert store.read("s3://erv-mlflow/2/model") == b"model"
    store.delete("s3://erv-mlflow/2/model")
    assert refused(lambda: store.read(clip[0]))
    assert refused(lambda: store.list("s3://erv-dvc/remote"))


def test_the_rules_of_all_buckets_are_taken(admin: Environment, decided: dict[str, Any]) -> None:
    client = _client(admin)
    for key, bucket in decided["buckets"].items():
        rules = [_rule(rule) for rule in decided["lifecycle"][key]]
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
        assert client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """As buckets.tf makes it."""
    made: dict[str, Any] = {"ID": rule["id"], "Status": "Enabled", "Filter": {"Prefix": rule["prefix"]}}
    if "abort_days" in rule:
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule["abort_days"]}
    if "noncurrent_days" in rule:
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["noncurrent_days"]}
    if rule.get("markers"):
        made["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if "days" in rule:
        made["Expiration"] = {"Days": rule["days"]}
    return made
