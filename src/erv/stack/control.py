"""The commands of the local stack: up, down, status and clean."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from erv.environment import (
    Environment,
    clone_state,
    keep_private,
    own_environment,
    read_stack_file,
    silence_telemetry,
)
from erv.errors import StackError, StorageError
from erv.stack import ports as port_choice
from erv.stack import processes
from erv.stack.dvc_remote import KEYS_FOLDER, write_dvc_remote, write_private
from erv.stack.services import GRACE_SECONDS, PORTS, SERVICES, Service, build
from erv.stack.switch import check_starting

logger = logging.getLogger(__name__)

PORTS_KEY = "ERV_STACK_PORTS"
_START_SECONDS = 180.0  # MLflow creates its tables on first start, which is slow on a busy machine
_LOCK_SECONDS = 240.0
_UNHEALTHY_SECONDS = 5.0
_CLOSING_SECONDS = 10.0  # for the ports of a server that was stopped
_DYING_SECONDS = 3.0  # for those of a server that was killed: its last threads hold them for a moment
_HEADER = "# Written by `erv stack up`: addresses and keys of this workspace's own servers.\n"


@dataclass(frozen=True)
class ServiceStatus:
    """State of one server: running, unhealthy (alive but not answering) or stopped."""

    name: str
    state: str
    url: str | None
    pid: int | None
    log: Path


def up(
    workspace: str | Path = ".",
    names: Sequence[str] = SERVICES,
    patience: float = _START_SECONDS,
    own: bool = False,
) -> Environment:
    """Starts servers that aren't running, waits until all work, creates the buckets and configures DVC.

    Calling it again changes nothing. If a server does not come up, all servers that this call has started are
    stopped again. A clone that is connected to servers of others stays so, unless `own` says otherwise.

    Args:
        workspace: root of the repository.
        names: the servers to start, all by default; others are left alone.
        patience: seconds that a server may take to become ready.
        own: let them take the place of servers of others that the clone is connected to.

    Returns:
        The environment for using the servers.

    Raises:
        StackError: the clone uses servers of others; or a server did not come up, and the message has the
            most telling line of its log.
    """
    workspace = Path(workspace).resolve()
    check_starting(workspace, names, own)
    with _locked(workspace):
        try:
            return _up(workspace, names, patience)
        except _PortTaken as first:
            logger.info("%s; trying again with other ports", first)
            return _up(workspace, names, patience)


def _up(workspace: Path, names: Sequence[str], patience: float) -> Environment:
    from erv.stack.s3_keys import write_s3_keys  # `python -m` warns about a module that is imported before

    environment, ports = _plan(workspace, names)
    services = build(environment, ports)
    missing = [
        services[name] for name in SERVICES if name in names and not _is_up(environment, services[name])
    ]
    if missing:
        _stop_all(environment, [service.name for service in missing])
        environment, ports = _plan(workspace, names)
        services = build(environment, ports)
        missing = [services[service.name] for service in missing]
        _write_stack_file(environment, ports)
        write_s3_keys(environment)
        _start_all(environment, missing, patience)
    else:
        _write_stack_file(environment, ports)
    if "s3" in names:
        _make_buckets(environment)
        if environment.connected_file.is_file():  # `erv connect` tells from it what a way back needs
            environment.connected_file.replace(environment.left_file)
        write_dvc_remote(environment)
    if "mlflow" in names:
        deliver_waiting(environment)
    return environment


def down(workspace: str | Path = ".") -> list[str]:
    """Stops the servers of the workspace; returns the names of those that were running."""
    workspace = Path(workspace).resolve()
    environment = own_environment(workspace)
    if not environment.stack.is_dir():
        return []
    with _locked(workspace):
        return _stop_all(environment, SERVICES)


def clean(workspace: str | Path = ".") -> None:
    """Stops the servers and deletes everything they have stored; the rest of `.erv` stays.

    In a clone that is connected to servers of others, the keys by which DVC reaches those stay, too.
    """
    workspace = Path(workspace).resolve()
    down(workspace)
    environment = own_environment(workspace)
    if clone_state(workspace) == "connected":
        for path in environment.stack.glob("*"):
            if path.name != KEYS_FOLDER:
                shutil.rmtree(path, ignore_errors=True)
    else:
        shutil.rmtree(environment.stack, ignore_errors=True)
    environment.stack_file.unlink(missing_ok=True)


def status(workspace: str | Path = ".") -> list[ServiceStatus]:
    """The current state of each server of the workspace."""
    environment = own_environment(workspace)
    ports = _read_ports(environment)
    services = build(environment, ports)
    result = []
    for name in SERVICES:
        record = processes.load(_records(environment), name)
        process = processes.leader(record) if record else None
        service = services.get(name)
        state = "stopped"
        if process is not None:
            state = "running" if service is not None and service.healthy() else "unhealthy"
        result.append(
            ServiceStatus(
                name=name,
                state=state,
                url=service.url if service else None,
                pid=process.pid if process else None,
                log=environment.stack / "logs" / f"{name}.log",
            )
        )
    return result


class _PortTaken(StackError):
    """Another process took a port after we chose it and before the server started."""


@contextlib.contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    """Allows one start or stop at a time; a second one waits for the first and then finds the work done."""
    from filelock import FileLock, Timeout

    state = own_environment(workspace).state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    keep_private(own_environment(workspace))
    lock = FileLock(state / "stack.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another `erv stack` that is running in this workspace")
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise StackError(
                f"another `erv stack` has been running here for over {_LOCK_SECONDS:.0f} s; stop it first"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _plan(workspace: Path, names: Sequence[str]) -> tuple[Environment, dict[str, int]]:
    """Chooses ports and keys, if possible those of last time; ignores the process's own `ERV_*`."""
    known = own_environment(workspace)
    previous = _read_ports(known)
    held = [
        name
        for service in SERVICES
        if (record := processes.load(_records(known), service)) is not None and processes.leader(record)
        for name in PORTS[service]
        if name in previous
    ]
    free = [name for service in names for name in PORTS[service] if name not in held]
    ports = {**previous, **port_choice.choose(workspace, free, previous)}
    environment = replace(
        known,
        s3_access_key=known.s3_access_key or secrets.token_hex(10),
        s3_secret_key=known.s3_secret_key or secrets.token_hex(20),
        mlflow_token=known.mlflow_token or secrets.token_hex(20),
        prefect_auth_string=known.prefect_auth_string or f"erv:{secrets.token_hex(20)}",
    )
    if "s3" in ports:
        environment = replace(environment, s3_endpoint=f"http://127.0.0.1:{ports['s3']}")
    if "mlflow" in ports:
        environment = replace(environment, mlflow_uri=f"http://127.0.0.1:{ports['mlflow']}")
    if "prefect" in ports:
        url = f"http://127.0.0.1:{ports['prefect']}"
        environment = replace(environment, prefect_api_url=f"{url}/api", prefect_ui_url=url)
    return environment, ports


def _is_up(environment: Environment, service: Service) -> bool:
    """Whether the server runs with the right settings and answers; a slow one gets a few seconds."""
    record = processes.load(_records(environment), service.name)
    if record is None or record.fingerprint != service.fingerprint:
        return False
    deadline = time.monotonic() + _UNHEALTHY_SECONDS
    while processes.leader(record) is not None:
        if service.healthy():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return False


def _start_all(environment: Environment, services: Sequence[Service], patience: float) -> None:
    """Starts servers in parallel; if one does not come up, stops all of them."""
    started: dict[str, processes.Record] = {}
    try:
        for service in services:
            started[service.name] = record = processes.start(
                service.name,
                service.command,
                service.environment,
                service.folder,
                service.log,
                service.fingerprint,
            )
            record.save(_records(environment))
        _wait_healthy(services, started, patience)
    except BaseException:
        _stop_all(environment, list(started))
        raise


def _wait_healthy(
    services: Sequence[Service], started: Mapping[str, processes.Record], patience: float
) -> None:
    begin = time.monotonic()
    waiting = list(services)
    while waiting:
        for service in list(waiting):
            if processes.leader(started[service.name]) is None:
                reason = processes.last_error(service.log)
                kind = _PortTaken if "address already in use" in reason.lower() else StackError
                raise kind(f"{service.name} exited while starting: {reason} (log: {service.log})")
            if service.healthy():
                waiting.remove(service)
                seconds = time.monotonic() - begin
                logger.info("%s is ready after %.1f s: %s", service.name, seconds, service.url)
            elif time.monotonic() - begin > patience:
                reason = processes.last_error(service.log)
                raise StackError(
                    f"{service.name} was not ready after {patience:.0f} s: {reason} (log: {service.log})"
                )
        if waiting:
            time.sleep(0.3)


def _make_buckets(environment: Environment) -> None:
    from erv.storage.store import open_store

    store = open_store(environment)
    try:
        store.ensure_bucket(environment.raw_bucket, versioning=True)
        store.ensure_bucket(environment.dvc_bucket)
        store.ensure_bucket(environment.artifact_bucket)
    except StorageError as error:
        raise StackError(f"the buckets could not be created: {error}") from error


def deliver_waiting(environment: Environment) -> None:
    """Sends MLflow the runs that wait in `.erv/spool`; says so if it can't."""
    from erv.tracking.delivery import Outage, deliver_spool

    silence_telemetry()  # MLflow is imported here
    try:
        count = deliver_spool(environment)
    except Outage as outage:
        logger.warning("the runs in .erv/spool could not be delivered and stay there: %s", outage)
    except OSError as error:
        logger.warning("the runs in .erv/spool can't be read: %s", error)
    else:
        if count:
            logger.info("%d runs of finished stages were delivered from .erv/spool to MLflow", count)


def _stop_all(environment: Environment, names: Sequence[str]) -> list[str]:
    """Stops servers in parallel; returns the names of those that were running."""
    with ThreadPoolExecutor(len(SERVICES)) as pool:
        were_running = list(pool.map(lambda name: _stop_service(environment, name), names))
    return [name for name, was in zip(names, were_running, strict=True) if was]


def _stop_service(environment: Environment, name: str) -> bool:
    """Stops a server if it is running; returns whether it was."""
    record = processes.load(_records(environment), name)
    if record is None:
        return False
    was_running = bool(processes.members(record))
    processes.stop(record, GRACE_SECONDS[name])
    processes.forget(_records(environment), name)
    ports = _read_ports(environment)
    if name == "s3":
        _remove_sockets(ports)
    own = [ports[port] for port in PORTS[name] if port in ports]
    taken = port_choice.wait_until_free(own, _CLOSING_SECONDS if was_running else _DYING_SECONDS)
    if taken and was_running:
        logger.warning("port %s of %s is still taken; the next start will use another", taken[0], name)
    return was_running


def _records(environment: Environment) -> Path:
    return environment.stack / "pids"


def _read_ports(environment: Environment) -> dict[str, int]:
    text = read_stack_file(environment.stack_file).get(PORTS_KEY, "")
    pairs = (item.partition(":") for item in text.split(",") if item)
    return {name: int(port) for name, _, port in pairs if port.isascii() and port.isdigit()}


def _write_stack_file(environment: Environment, ports: Mapping[str, int]) -> None:
    values = environment.variables()
    values[PORTS_KEY] = ",".join(f"{name}:{port}" for name, port in ports.items())
    text = _HEADER + "".join(f"{name}={value}\n" for name, value in values.items())
    if not environment.stack_file.is_file() or environment.stack_file.read_text(encoding="utf-8") != text:
        write_private(environment.stack_file, text)


def _remove_sockets(ports: Mapping[str, int]) -> None:
    """Removes the local sockets that SeaweedFS leaves in the temporary folder when it is killed."""
    import tempfile

    for name in PORTS["s3"]:
        if name in ports:  # those of HTTP are beside the data, except where an older version started it
            kind = name.removesuffix("_grpc") + ("-grpc" if name.endswith("_grpc") else "")
            path = Path(tempfile.gettempdir()) / f"seaweedfs-{kind}-{ports[name]}.sock"
            with contextlib.suppress(OSError):
                path.unlink()
