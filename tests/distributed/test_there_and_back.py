"""A placed stage runs on a worker, and its result is as if it had run here."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from erv.environment import Environment
from tests.distributed.databases import Databases
from tests.distributed.topology import Clone, Worker, runs_of_pool

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


def test_it_runs_there_and_comes_back(
    stack: Environment,
    clone: Clone,
    new_clone: Callable[..., Clone],
    new_worker: Callable[..., Worker],
    databases: Databases,
) -> None:
    worker = new_worker()
    ahead = " ".join(clone.erv("run", "--dry").stdout.split())
    serve = r"(one worker serves|\d+ workers serve) it"  # Prefect still counts those that were just killed
    assert re.search(f"in work pool gpu: tune; {serve}", ahead)
    assert re.search(f"tune in work pool gpu: {serve}", clone.erv("doctor", check=False).stdout)
    done = clone.erv("run", check=False)
    assert done.returncode == 0, done.stdout + done.stderr + worker.background.text()
    said = done.stdout + done.stderr
    assert "3 stages: 3 ran" in said
    assert "starts at step 0" in said, "its log streams into the parent's"
    assert f":{worker.home}" in said, "and says where it runs"
    assert (clone.folder / "trained/weights.txt").read_text() == f"3 steps {_seed(clone)}\n"
    assert "up to date" in clone.dvc("status")
    # Nothing of it ran here, nothing is left there, and what nobody needs is gone from the store.
    assert not (clone.folder / ".erv/checkpoints").exists()
    assert list((worker.home / "checkouts").iterdir()) == []
    assert not [key for key in clone.objects() if "checkpoint" in key or "pulse" in key or "log/" in key]
    (run,) = clone.runs()["tune"]
    assert run.info.status == "FINISHED"
    (parent,) = clone.runs()["train"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.tags["erv.placed_in"] == "gpu"
    assert parent.data.tags["erv.run.tune"] == run.info.run_id
    assert run.data.tags["erv.git_commit"] == clone.head()
    assert databases.count("mlflow", "SELECT count(*) FROM runs") >= 4, "the parent and three stages"
    assert databases.count("prefect", "SELECT count(*) FROM flow_run") >= 2, "the parent and the placed stage"
    count = len(runs_of_pool(stack))
    again = clone.erv("run")
    assert "3 stages: 3 unchanged" in again.stdout, again.stdout
    assert len(runs_of_pool(stack)) == count
    # The same as on this machine: a clone without placement.
    local = new_clone()
    local.place("{}")
    local.commit()
    local.erv("run")
    assert (local.folder / "dvc.lock").read_text() == (clone.folder / "dvc.lock").read_text()


def test_a_run_may_say_where_its_stages_run(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    """Before the file, which names a pool that nobody serves; afterwards, nothing of it stays."""
    clone.place("{tune: elsewhere}")
    clone.commit()
    worker = new_worker()
    done = clone.erv("run", "--placement", "tune=gpu", check=False)
    assert done.returncode == 0, done.stdout + done.stderr + worker.background.text()
    assert f":{worker.home}" in done.stdout + done.stderr
    (run,) = clone.runs()["tune"]
    assert run.data.tags["erv.placed_in"] == "gpu"
    assert "erv.placed_in" not in clone.runs()["first"][0].data.tags
    assert "up to date" in clone.dvc("status")
    assert "3 stages: 3 unchanged" in clone.erv("run").stdout
    for wrong, said in {
        "tune": "error: placement 'tune': expected STAGE=POOL, such as grpo=gpu",
        "tnue=gpu": "error: placement names tnue, which is no stage of dvc.yaml",
    }.items():
        refused = clone.erv("run", "--placement", wrong, check=False)
        assert refused.returncode == 2, "before anything starts"
        assert said in refused.stderr


def _seed(clone: Clone) -> str:
    import yaml

    return str(yaml.safe_load((clone.folder / "params.yaml").read_text())["seed"])
