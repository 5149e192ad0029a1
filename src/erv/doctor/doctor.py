"""`erv doctor`: what is needed, whether it is there, and what to do if it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from erv.environment import (
    STACK_FILE,
    Environment,
    command_for,
    connected_servers,
    load_environment,
    read_stack_file,
    remedy_for,
    shared_servers,
)
from erv.errors import DataError, ErvError, SettingsError, StackError, StorageError

State = Literal["ok", "warn", "fail"]

_ENOUGH_BYTES = 5_000_000_000
_NEEDED_BYTES = 500_000_000


@dataclass(frozen=True)
class Finding:
    """What the doctor found in one place: `warn` is worth knowing, `fail` must be fixed."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def examine(workspace: str | Path = ".") -> list[Finding]:
    """Examines a workspace; changes nothing and raises nothing."""
    return list(findings(workspace))


def findings(workspace: str | Path = ".") -> Iterator[Finding]:
    """What `examine` finds, each as soon as it is known: a server that is away takes seconds."""
    workspace = Path(workspace).resolve()
    usable = True
    try:
        environment = load_environment(workspace)
    except SettingsError as error:
        sentence, _, remedy = str(error).rpartition("; ")
        remedy = remedy.replace("the file", f".erv/{STACK_FILE}")
        yield Finding("environment", "fail", sentence, remedy)
        usable = False
        environment = Environment(workspace)
    sections: list[Callable[[Environment], Iterator[Finding]]] = [
        _python,
        _code,
        _packages,
        _disk,
        _git,
        _parameters,
        *([_variables, _stack] if usable else []),
        _storage,
        *([_tracking, _orchestration, _deployments, _schedules, _background] if usable else []),
        _dvc,
        _pipeline,
        _sources,
        _spool,
        _media,
    ]
    for section in sections:
        yield from _found_by(section, environment)


def _found_by(
    section: Callable[[Environment], Iterator[Finding]], environment: Environment
) -> Iterator[Finding]:
    """What a section finds; whatever stops it is a finding too, and the sections after it still run."""
    name = section.__name__.removeprefix("_")
    try:
        yield from section(environment)
    except ErvError as error:
        sentence, _, remedy = str(error).replace("\n", " ").rpartition("; ")
        yield Finding(name, "fail", sentence or remedy, remedy if sentence else "")
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Finding(name, "fail", f"could not be checked ({what})", "correct that, or report it as a bug")


def _python(environment: Environment) -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] == (3, 11):
        yield Finding("python", "ok", version)
    else:
        yield Finding(
            "python", "fail", f"{version}, expected 3.11", "recreate the environment: `make install`"
        )


def _code(environment: Environment) -> Iterator[Finding]:
    """An environment of another clone."""
    from erv.stack.own_code import require_own_code

    if (environment.workspace / "src" / "erv").is_dir():
        require_own_code(environment.workspace)
        yield Finding("code", "ok", "the erv that runs is the one of this folder")


def _packages(environment: Environment) -> Iterator[Finding]:
    locks = sorted((environment.workspace / "requirements").glob("*.lock"))
    if not locks:
        yield Finding(
            "packages", "warn", "no requirements/*.lock here", "run this from the top of the repository"
        )
        return
    lines = (
        line.split("#")[0].split(";")[0].strip()
        for lock in locks
        for line in lock.read_text(encoding="utf-8").splitlines()
    )
    pinned = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("-"))
    missing, different = [], []
    for name, wanted in sorted(pinned.items()):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        # A local label such as `+cpu` names the build, not the version.
        if found.partition("+")[0] != wanted.strip().partition("+")[0]:
            different.append(f"{name} {found} instead of {wanted.strip()}")
    remedy = "`make install`"
    if missing:
        yield Finding("packages", "fail", f"not installed: {_some(missing)}", remedy)
    if different:
        yield Finding("packages", "warn", f"not as in requirements/: {_some(different)}", remedy)
    if not missing and not different:
        yield Finding("packages", "ok", f"all {len(pinned)} as in requirements/")


def _disk(environment: Environment) -> Iterator[Finding]:
    free = shutil.disk_usage(environment.workspace).free
    detail = f"{free / 1e9:.1f} GB free"
    if free < _NEEDED_BYTES:
        yield Finding("disk", "fail", detail, "make room: stages refuse to start below 0.5 GB")
    elif free < _ENOUGH_BYTES:
        yield Finding("disk", "warn", detail, "make room: the demo writes about 1 GB, a real corpus far more")
    else:
        yield Finding("disk", "ok", detail)


def _git(environment: Environment) -> Iterator[Finding]:
    commit = _output(["git", "-C", str(environment.workspace), "rev-parse", "--short", "HEAD"])
    if commit is None:
        yield Finding(
            "git", "fail", "no commit here", "`git init && git add . && git commit`: DVC and runs refer to it"
        )
        return
    changes = _output(["git", "-C", str(environment.workspace), "status", "--porcelain"]) or ""
    changed = [line[3:] for line in changes.splitlines() if line[3:] != "dvc.lock"]
    detail = f"commit {commit}, " + (_differ(len(changed)) if changed else "clean")
    yield Finding("git", "ok", detail)


def _differ(count: int) -> str:
    return "1 file differs from it" if count == 1 else f"{count} files differ from it"


def _parameters(environment: Environment) -> Iterator[Finding]:
    from erv.labels import label_space_faults
    from erv.settings import load_settings

    try:
        settings = load_settings(environment.workspace / "params.yaml")
    except SettingsError as error:
        yield Finding("params", "fail", str(error).replace("\n", " "), "correct params.yaml")
        return
    yield Finding("params", "ok", "params.yaml has no faults")
    for fault in label_space_faults(environment.workspace, settings.datasets):
        yield Finding("params", "fail", fault, "correct the label space")


def _variables(environment: Environment) -> Iterator[Finding]:
    written = read_stack_file(environment.stack_file)
    other = [n for n, value in written.items() if n in os.environ and os.environ[n] != value]
    if other:
        remedy = "the shell wins; if you don't want that: `unset " + " ".join(other) + "`"
        yield Finding("variables", "warn", f"the shell's {_some(other)} differ from .erv/stack.env", remedy)


def _stack(environment: Environment) -> Iterator[Finding]:
    from erv.stack import status

    shared = shared_servers(environment)
    if not environment.stack_file.is_file():
        if shared:
            yield Finding("stack", "ok", f"none of its own: ERV_* variables name {_some(list(shared))}")
            return
        if connected := connected_servers(environment):
            servers = ", ".join(f"{name} at {url}" for name, url in connected.items())
            detail = f"this clone is connected to {servers}, but this shell lacks their ERV_* variables"
            yield Finding("stack", "fail", detail, "set what `erv connect` lists")
            return
        state: State = "warn" if environment.has_storage else "fail"
        remedy = "run `erv stack up`, or set ERV_* variables to use servers elsewhere and run `erv connect`"
        yield Finding("stack", state, "the local stack has not been started here", remedy)
        return
    for service in status(environment.workspace):
        if service.name in [name.lower() for name in shared]:
            detail = f"{service.state}, not used: ERV_* variables name another server"
            yield Finding(f"stack {service.name}", "ok", detail)
        elif service.state == "running":
            yield Finding(f"stack {service.name}", "ok", f"{service.url} (process {service.pid})")
        else:
            yield Finding(
                f"stack {service.name}", "fail", service.state, f"`erv stack up`; its log is {service.log}"
            )


def _storage(environment: Environment) -> Iterator[Finding]:
    from erv.storage.store import open_store

    try:
        store = open_store(environment, patient=False)
        versioned = store.versioned(environment.raw_bucket)
        for bucket in (environment.raw_bucket, environment.dvc_bucket, environment.artifact_bucket):
            store.list(f"s3://{bucket}/.doctor")
    except StorageError as error:
        sentence, _, remedy = str(error).partition("; ")
        yield Finding("storage", "fail", sentence, remedy)
        return
    where = environment.s3_endpoint or "Amazon S3"
    if versioned:
        yield Finding("storage", "ok", f"{where} accepts the key, all three buckets are there")
    else:
        detail = f"bucket {environment.raw_bucket} does not keep versions"
        yield Finding(
            "storage", "warn", detail, "turn versioning on, or a raw file can change after it was pinned"
        )


def _tracking(environment: Environment) -> Iterator[Finding]:
    if environment.mlflow_uri is None:
        remedy = remedy_for("MLflow", environment.workspace)
        yield Finding("tracking", "warn", "no MLflow server is configured, runs are not tracked", remedy)
        return
    address = f"{environment.mlflow_uri}/version"
    yield _server("tracking", "MLflow", environment.mlflow_uri, address, environment.mlflow_headers)


def _orchestration(environment: Environment) -> Iterator[Finding]:
    if environment.prefect_api_url is None:
        remedy = remedy_for("Prefect", environment.workspace)
        detail = "no Prefect server is configured"
        yield Finding("prefect", "warn", detail, f"{remedy}; `dvc repro` needs none")
        return
    url = environment.prefect_api_url
    yield _server("prefect", "Prefect", url, f"{url}/admin/version", environment.prefect_headers)


def _deployments(environment: Environment) -> Iterator[Finding]:
    """Where the runs of deployments work, whether a worker takes them, and what waits in other pools."""
    from erv.stack import deployments, other_pools, pools
    from erv.stack.reach import unreachable

    url = environment.prefect_api_url
    if url is None or unreachable("Prefect", f"{url.rstrip('/')}/health"):
        return  # the finding before this one has said so
    found = deployments.deployed(environment)
    for place, names in deployments.foreign(environment, found).items():
        yield Finding("deployments", "ok", f"{' and '.join(names)} run in {place}")
    if here := [one for one in found if one.place.is_of(environment)]:
        detail = f"{' and '.join(one.name for one in here)} run here"
        if pools.worker_is_online(environment, pools.pool_of(environment.workspace)):
            yield Finding("deployments", "ok", f"{detail}; a worker is online")
        else:
            detail += "; no worker of this clone is running"
            yield Finding("deployments", "warn", detail, "`erv run --worker`, if there are to be runs")
        for left in other_pools.left_elsewhere(environment, here):
            remedy = "`erv run --deploy --cancel-waiting` cancels those that wait"
            yield from (Finding("deployments", "warn", line, remedy) for line in left.lines())
    if note := other_pools.former_note(environment):
        sentence, _, remedy = note.partition(": ")
        yield Finding("deployments", "warn", sentence, remedy)


def _schedules(environment: Environment) -> Iterator[Finding]:
    """Deployments that are to run at certain times, and won't."""
    from erv.doctor.schedules import silent_schedules
    from erv.stack.reach import unreachable

    url = environment.prefect_api_url
    if url is None or unreachable("Prefect", f"{url.rstrip('/')}/health"):
        return  # the finding before this one has said so
    remedy = "`make install`, then `erv stack down` and `erv stack up`"
    if "Prefect" in shared_servers(environment):
        remedy = "have its background services restarted, with the versions in requirements/tools.lock"
    for silent in silent_schedules(environment):
        detail = (
            f"{silent.name} has an active schedule, but since {silent.since:%Y-%m-%d %H:%M} UTC no run ahead:"
            f" the scheduler of Prefect at {url} doesn't work"
        )
        yield Finding("schedules", "fail", detail, remedy)


def _background(environment: Environment) -> Iterator[Finding]:
    """What fails in our Prefect server without a request, so that only its log tells."""
    from erv.stack.background import service_errors

    if environment.prefect_api_url is None or "Prefect" in shared_servers(environment):
        return
    log = environment.stack / "logs" / "prefect.log"
    for error in service_errors(log, datetime.now()):
        detail = (
            f"Prefect's service {error.service} failed {error.count} times in the last hour, first at"
            f" {error.first:%H:%M} and last at {error.last:%H:%M}: {error.reason}"
        )
        remedy = f"`make install`, then `erv stack down` and `erv stack up`; the log is {log}"
        # Once or twice may be a busy disk.
        yield Finding("background", "fail" if error.count > 2 else "warn", detail, remedy)


def _server(name: str, title: str, url: str, address: str, headers: Mapping[str, str]) -> Finding:
    from erv.stack.reach import server_version

    try:
        version = server_version(title, url, address, headers)
    except StackError as error:
        sentence, _, remedy = str(error).partition("; ")
        return Finding(name, "fail", sentence, remedy)
    expected = metadata.version(title.lower())
    if version != expected:
        detail = f"{title} at {url} is {version}, the client {expected}"
        return Finding(name, "warn", detail, "use equal versions")
    return Finding(name, "ok", f"{title} {version} at {url}")


def _dvc(environment: Environment) -> Iterator[Finding]:
    folder = environment.workspace / ".dvc"
    if not (folder / "config").is_file():
        yield Finding(
            "dvc", "fail", "no .dvc/config here", "run this from the top of the repository, or `dvc init`"
        )
        return
    from erv.pipeline import lock_fault
    from erv.stack.dvc_remote import read_dvc_config, stale_settings

    read_dvc_config(folder / "config")
    local = read_dvc_config(folder / "config.local").get('remote "erv"', {})
    if not _is_locked(folder / "tmp" / "lock"):  # or a dvc may just be writing it
        fault = lock_fault(environment.workspace)
        if fault is not None:
            what, _, remedy = fault.rpartition("; ")
            yield Finding("dvc", "fail", what, remedy)
            return
    if environment.has_storage and (stale := stale_settings(environment)):
        detail = "the remote in .dvc/config.local is not that of the object store in use"
        detail += f": {', '.join(stale)} differ" if local else ": it is not written yet"
        yield Finding("dvc", "fail", detail, f"`{command_for('S3', environment.workspace)}` writes it")
        return
    if _is_locked(folder / "tmp" / "lock"):
        yield Finding("dvc", "warn", "another dvc is running here", "wait for it; run one pipeline at a time")
        return
    lock = environment.workspace / "dvc.lock"
    detail = "dvc.lock is there" if lock.is_file() else "nothing has run yet (no dvc.lock)"
    yield Finding("dvc", "ok", f"remote {local.get('url', 'as in .dvc/config')}, {detail}")


def _pipeline(environment: Environment) -> Iterator[Finding]:
    from erv.pipeline import check_definitions

    check_definitions(environment.workspace)
    yield Finding("pipeline", "ok", "dvc.yaml can be read")


def _is_locked(path: Path) -> bool:
    """Whether a process holds DVC's repository lock (zc.lockfile: flock on the file)."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return False
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(stream, fcntl.LOCK_UN)
    return False


def _sources(environment: Environment) -> Iterator[Finding]:
    from erv.settings import load_settings
    from erv.sources import Lock

    try:
        sources = load_settings(environment.workspace / "params.yaml").sources.model_dump()
    except ErvError:
        return
    folder = environment.workspace / "data" / "sources"
    missing, other, damaged = [], [], []
    for name, uri in sources.items():
        path = folder / f"{name}.lock.json"
        try:
            if not path.exists():
                missing.append(name)
            elif Lock.load(path).uri != uri:
                other.append(name)
        except (DataError, OSError) as error:
            damaged.append(name)
            reason = " ".join(str(error).split())[:300]
            yield Finding("sources", "fail", reason, f"`erv data pin {name}`")
    if missing:
        yield Finding("sources", "fail", f"not pinned: {_some(missing)}", "`make data`, or `erv data pin`")
    if other:
        yield Finding(
            "sources", "warn", f"not pinned where params.yaml says: {_some(other)}", "`erv data pin`"
        )
    if not missing and not other and not damaged:
        yield Finding("sources", "ok", f"all {len(sources)} are pinned")


def _spool(environment: Environment) -> Iterator[Finding]:
    from erv.tracking.delivery import waiting

    count = waiting(environment)
    if count:
        detail = f"{count} runs of finished stages are not yet complete in MLflow"
        remedy = f"`{command_for('MLflow', environment.workspace)}` delivers them"
        yield Finding("spool", "warn", detail, remedy)


def _media(environment: Environment) -> Iterator[Finding]:
    from erv.media.confinement import tried

    try:
        given = tried()
    except OSError as error:
        yield Finding("media workers", "warn", f"can't be tried: {error}", "free some memory")
        return
    if given.gaps:
        remedy = "decode only clips that you trust, or use Linux 5.13 or later on x86-64 or ARM"
        yield Finding("media workers", "warn", f"a clip that exploits a decoder could {given.gaps}", remedy)
        return
    detail = f"read their clip alone, no network (Landlock {given.landlock}, seccomp)"
    yield Finding("media workers", "ok", detail)


def _output(command: list[str]) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
