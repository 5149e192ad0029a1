"""Servers that die, and an S3 that errs, cuts, crawls or refuses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import yaml

from erv.stack.control import status
from tests.chaos.place import Place
from tests.integration.proxy import Proxy

# Few enough faults for the retries of the libraries, many enough to hit each command. Of a hundred:
_SHARE = 0.1


def killed(place: Place, server: str) -> None:
    """Kills a server while a flow runs, and starts it again; the flow may fail clearly, the next may not."""
    target = "ingest@mafw" if server == "s3" else "extract@mafw"
    started = place.start("erv", "run", "--force", target)
    what = f"{server} killed during erv run {target}"
    time.sleep(place.random.uniform(2.0, 9.0))
    pid = next(item.pid for item in status(place.path) if item.name == server)
    if pid is not None:
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            process.kill()
        place.ledger.add(place.scene, "kills")
        place.ledger.add(place.scene, "faults")
    time.sleep(place.random.uniform(1.0, 8.0))
    place.require(place.erv("stack", "up"), what)
    place.allow(started.ended(), what)
    place.nothing_runs(what)
    place.require(place.erv("run", target), what)
    place.check(what)
    place.ledger.say(what)


def faulty_storage(place: Place, fault: str, command: str) -> None:
    """Puts a faulty relay between a command and S3. It may fail clearly; without it, it must not."""
    what = f"S3: {fault}, during {command}"
    environment = place.environment
    proxy = Proxy(str(environment.s3_endpoint), seed=place.random.randrange(1 << 30))
    before = _versions(place)
    place.ledger.add(place.scene, "faults")
    try:
        # A clone with its own stack takes no other store from a variable.
        with _named(place, proxy.endpoint), _fault(proxy, fault):
            place.allow(_run(place, command), what)
    finally:
        proxy.close()
    place.nothing_runs(what)
    place.require(_run(place, command), f"{what}, afterwards")
    if len(_versions(place)) > len(before):
        place.ledger.damage(place.scene, "duplicated", f"{what}: another version of the same bundle")
    place.check(what)
    if command == "pull":
        # Only what the command needed is back in the cache; later trials need all of it.
        place.repair()
    place.ledger.say(what)


@contextmanager
def _fault(proxy: Proxy, fault: str) -> Iterator[None]:
    if fault == "refuses":
        with proxy.refuse():
            yield
        return
    if fault in ("500", "503"):
        proxy.status, proxy.status_share = int(fault), _SHARE
    elif fault == "cuts":
        proxy.cut_share = _SHARE
    else:
        proxy.delay = 0.05
    yield


@contextmanager
def _named(place: Place, endpoint: str) -> Iterator[None]:
    """Names another address of the own S3 in `stack.env`, as if the server had moved there."""
    file = place.environment.stack_file
    written = file.read_text()
    file.write_text(written.replace(str(place.environment.s3_endpoint), endpoint))
    try:
        yield
    finally:
        file.write_text(written)


def _run(place: Place, command: str):
    if command == "pull":
        # A colleague's machine: the lock is there, the outputs are not.
        shutil.rmtree(place.path / ".dvc/cache", ignore_errors=True)
        shutil.rmtree(place.path / "data/shards", ignore_errors=True)
        shutil.rmtree(place.path / "models/policy", ignore_errors=True)
        return place.erv("run", "sft", "extract", "grpo")
    if command == "stage":
        return place.stage("extract@mafw")
    return place.erv(*command.split())


def _versions(place: Place) -> list[str]:
    """The versions of the registered model."""
    from erv.tracking.lock_entries import client_of

    client = client_of(place.environment)
    return [version.version for version in client.search_model_versions(f"name='{_model(place)}'")]


def _model(place: Place) -> str:
    name = yaml.safe_load((place.path / "params.yaml").read_text())["register"]["model_name"]
    return str(name)


def two_publish(place: Place) -> None:
    """Two `erv publish` at once of a bundle that the registry doesn't know: one version."""
    from erv.tracking.lock_entries import client_of

    place.ledger.add(place.scene, "faults")
    client_of(place.environment).delete_registered_model(_model(place))
    started = [place.start("erv", "publish") for _ in range(2)]
    for one in started:
        place.allow(one.ended(), "two publish at once")
    place.require(place.erv("publish"), "publish after two at once")
    if len(found := _versions(place)) != 1:
        kind = "duplicated" if found else "lost"
        place.ledger.damage(place.scene, kind, f"two publish at once made {len(found)} versions")
    place.ledger.say(f"two publish at once: {len(found)} version")


def two_runs(place: Place) -> None:
    """Two `erv run` at once in one workspace: the second refuses, or waits; nothing is run twice or lost."""
    place.ledger.add(place.scene, "faults")
    started = [place.start("erv", "run", "--force", "ingest") for _ in range(2)]
    ended = [one.ended() for one in started]
    for one in ended:
        place.allow(one, "two runs at once")
    if all(one.code != 0 for one in ended):
        place.ledger.damage(place.scene, "lost", "two runs at once: neither succeeded")
    place.nothing_runs("two runs at once")
    place.require(place.erv("run", "ingest"), "two runs at once")
    place.check("two runs at once")
    place.ledger.say("two runs at once")


def two_stages(place: Place, names: tuple[str, str]) -> None:
    """Two plain stages at once, as two terminals would run them."""
    place.ledger.add(place.scene, "faults")
    started = [place.start_stage(name) for name in names]
    for one, name in zip(started, names, strict=True):
        place.allow(one.ended(), f"{name} beside another")
    for name in names:
        place.require(place.stage(name, force=False), f"{name} after another beside it")
    place.check(f"{' and '.join(names)} at once")
    place.ledger.say(f"{' and '.join(names)} at once")
