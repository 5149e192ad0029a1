"""Answers of a real S3 server that are cut, refused or late: retried by us, by DVC and by MLflow."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment, child_environment
from erv.stack.dvc_remote import write_dvc_remote
from erv.storage.store import open_store
from tests.conftest import ROOT
from tests.integration.proxy import Proxy

pytestmark = pytest.mark.integration

MB = 1 << 20


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    relay = Proxy(str(stack.s3_endpoint))
    yield relay
    relay.close()


@pytest.mark.slow
def test_every_request_survives_cut_bodies(stack: Environment, proxy: Proxy, tmp_path: Path) -> None:
    base = f"s3://erv-raw/faults/{tmp_path.parent.name}"
    open_store(stack).write(b"x" * 5000, f"{base}/small/0")
    (tmp_path / "large").write_bytes(hashlib.shake_256(b"large").digest(20 * MB))
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(25):
        (tree / f"{number:02d}").write_bytes(hashlib.shake_256(bytes([number])).digest(30_000))
    through = open_store(replace(stack, s3_endpoint=proxy.endpoint))
    proxy.cut_share = 0.2
    assert all(through.read(f"{base}/small/0") == b"x" * 5000 for _ in range(20))
    assert through.mirror_tree(tree, f"{base}/tree")["stored"] == 25
    assert through.mirror_tree(tree, f"{base}/tree")["kept"] == 25
    through.upload(tmp_path / "large", f"{base}/large")
    for item in through.list(f"{base}/tree"):
        copy = through.download(item.uri, tmp_path / "copy" / item.key.rpartition("/")[2], size=item.size)
        assert copy.read_bytes() == (tree / copy.name).read_bytes()
    copy = through.download(f"{base}/large", tmp_path / "copy" / "large")
    assert copy.read_bytes() == (tmp_path / "large").read_bytes()
    assert [path.name for path in copy.parent.iterdir() if path.name.startswith(".")] == []
    assert proxy.faults > 5
    proxy.cut_share, proxy.status_share = 0.0, 0.2
    assert all(through.read(f"{base}/small/0") == b"x" * 5000 for _ in range(5))


@pytest.mark.slow
def test_dvc_survives_cut_bodies(stack: Environment, proxy: Proxy, tmp_path: Path) -> None:
    here = replace(
        stack, workspace=tmp_path, s3_endpoint=proxy.endpoint, dvc_bucket=f"erv-cut-{tmp_path.parent.name}"
    )
    open_store(stack).ensure_bucket(here.dvc_bucket)
    for name in range(30):
        path = tmp_path / "data" / f"{name:02d}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hashlib.shake_256(bytes([name])).digest(200_000))

    def dvc(*arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments]
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env=child_environment(here),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout

    (tmp_path / ".dvc").mkdir()
    config = (ROOT / ".dvc/config").read_text().replace("[core]", "[core]\n    no_scm = true")
    (tmp_path / ".dvc/config").write_text(config.replace("s3://erv-dvc", f"s3://{here.dvc_bucket}"))
    write_dvc_remote(here)
    dvc("add", "data")
    proxy.cut_share = 0.3
    dvc("push")
    shutil.rmtree(tmp_path / ".dvc/cache")
    shutil.rmtree(tmp_path / "data")
    dvc("pull")
    assert len(list((tmp_path / "data").iterdir())) == 30
    assert proxy.faults > 3
