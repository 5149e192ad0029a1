"""Every port that the stack listens on is closed to pages of other addresses and to users without keys."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from erv.environment import (
    Environment,
    child_environment,
    keep_private,
    load_environment,
    read_stack_file,
)
from erv.stack import control, prefect_api, processes
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from infra.compose.worker_health import online
from tests.integration.knocking import PAGE, faults, requests
from tests.integration.prefect_api import CLIENT, ask

pytestmark = pytest.mark.integration

NAME = "doors/kept.txt"
# What everyone on this machine may read. Neither Prefect's page nor an answer about health tells of our data.
# SeaweedFS's S3 shows its refusals to any page; a page can't make a browser sign requests.
OPEN = {
    "s3": ("/healthz", "/status"),
    "mlflow": ("/health",),
    "prefect": ("/api/health", "/api/ready", "/", "/ui-settings"),
}


def started(stack: Environment) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if processes.MARK in process.environ() and process.cwd().startswith(f"{stack.stack}{os.sep}"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def listening(stack: Environment) -> set[tuple[str, int]]:
    """The sockets of the stack's processes that accept connections or packets: address and port."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in started(stack)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }


def ports_by_name(stack: Environment) -> dict[int, str]:
    pairs = (item.split(":") for item in read_stack_file(stack.stack_file)["ERV_STACK_PORTS"].split(","))
    return {int(port): name for name, port in pairs}


@pytest.fixture(scope="module")
def kept(stack: Environment) -> Iterator[str]:
    address = f"s3://{stack.dvc_bucket}/{NAME}"
    open_store(stack).write(b"kept", address)
    yield address
    open_store(stack).delete(address)


def what_is_there(stack: Environment) -> tuple[object, ...]:
    store = open_store(stack)
    objects = {
        bucket: [item.uri for item in store.list(f"s3://{bucket}/")]
        for bucket in (stack.raw_bucket, stack.dvc_bucket, stack.artifact_bucket)
    }
    experiments = [item.name for item in client_of(stack).search_experiments()]
    flows = ask(stack, "/flows/count", {})
    pools = [pool["name"] for pool in ask(stack, "/work_pools/filter", {})]
    return objects, experiments, flows, pools


def test_no_port_lets_anybody_in(stack: Environment, kept: str) -> None:
    before = what_is_there(stack)
    sockets, names = listening(stack), ports_by_name(stack)
    assert {address for address, _ in sockets} == {"127.0.0.1"}
    assert {port for _, port in sockets} >= set(names)
    asked = requests(stack.dvc_bucket, NAME)
    found: list[str] = []
    for _, port in sorted(sockets):
        name = names.get(port, "")
        found += faults(port, asked, OPEN.get(name, ()), public_refusals=name == "s3")
    assert found == []
    assert what_is_there(stack) == before
    assert open_store(stack).read(kept) == b"kept"


def test_sockets_in_the_file_system_are_the_users_own(stack: Environment) -> None:
    """They answer without TLS, so it is their mode that keeps others out."""
    paths = {
        Path(process.cwd(), connection.laddr)
        for process in started(stack)
        for connection in process.net_connections("unix")
        if connection.laddr and not connection.laddr.startswith(("@", "\0"))
    }
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths if path.exists()}
    assert modes
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Servers as they are without our doors: a page of files, and SeaweedFS's master."""
    folder = tmp_path_factory.mktemp("careless")
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        pages, master, grpc = (probe.getsockname()[1] for probe in (one, two, three))
    weed = str(Path(sys.executable).with_name("weed"))
    options = [f"-port={master}", f"-port.grpc={grpc}", f"-mdir={folder}", "-telemetry=false"]
    commands = [
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(pages)],
        [weed, "master", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options],
    ]
    running = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        deadline = time.monotonic() + 30
        for port in (pages, master, grpc):
            while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
                time.sleep(0.1)
        yield {"pages": pages, "master": master, "grpc": grpc}
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("server", "fault"),
    [
        ("pages", "GET / of another user is answered with 200"),
        ("master", "GET /dir/status of a page is answered with 200"),
        ("grpc", "/master_pb.Seaweed/Assign is answered"),
    ],
)
def test_an_open_port_is_noticed(careless: dict[str, int], server: str, fault: str) -> None:
    port = careless[server]
    assert f"port {port}: {fault}" in faults(port, requests("erv-dvc", NAME))


def prefect(stack: Environment, path: str, headers: dict[str, str], body: bytes | None = None) -> int:
    request = urllib.request.Request(f"{stack.prefect_api_url}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_prefects_own_page_works(stack: Environment) -> None:
    """What the page does: it reads where the API is, asks for the key, then for a token, and sends both."""
    with urllib.request.urlopen(f"{stack.prefect_ui_url}/ui-settings", timeout=10) as answer:
        page = json.load(answer)
    assert (page["api_url"], page["auth"], page["csrf_enabled"]) == ("/api", "BASIC", True)
    own = {"Origin": str(stack.prefect_ui_url), "Content-Type": "application/json"}
    assert prefect(stack, "/flows/filter", own, b"{}") == 403, "no token"
    assert prefect(stack, "/admin/version", own) == 401, "no key"
    own |= stack.prefect_headers
    assert prefect(stack, "/flows/filter", own, b"{}") == 403, "a key alone is not enough to change things"
    token = ask(stack, f"/csrf-token?client={CLIENT}")["token"]
    own |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": CLIENT}
    assert prefect(stack, "/flows/filter", own, b"{}") == 200
    # With all that, another address is still refused: that of a page, and that of a rebound name.
    assert prefect(stack, "/flows/filter", {**own, "Origin": PAGE}, b"{}") == 403
    assert prefect(stack, "/flows/filter", {**own, "Origin": "http://127.0.0.1:1"}, b"{}") == 403
    assert prefect(stack, "/flows/filter", {**own, "Origin": PAGE, "Host": "evil.example"}, b"{}") == 400


def test_the_health_check_of_the_worker_brings_the_key(stack: Environment) -> None:
    url, key = str(stack.prefect_api_url), str(stack.prefect_auth_string)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        online(url, "no-such-pool", auth_string=key)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        online(url, "no-such-pool", auth_string="erv:wrong")


@pytest.mark.parametrize(
    "path", ["/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"]
)
def test_prefects_websockets_need_the_key(stack: Environment, path: str) -> None:
    address = str(stack.prefect_api_url).replace("http:", "ws:") + path
    with pytest.raises(InvalidStatus, match="403"), connect(address, origin=Origin(PAGE)):
        pass
    with connect(address, subprotocols=[Subprotocol("prefect")]) as websocket:
        websocket.send(json.dumps({"type": "auth", "token": "wrong"}))
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=10)


def test_mlflows_page_asks_a_browser_for_the_key(stack: Environment) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(str(stack.mlflow_uri), timeout=10)
    assert caught.value.headers["WWW-Authenticate"].startswith("Basic ")
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, str(stack.mlflow_uri), "erv", str(stack.mlflow_token))
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with opener.open(str(stack.mlflow_uri), timeout=10) as answer:
        assert b"<title>MLflow</title>" in answer.read()


def test_keys_are_in_no_log_and_in_no_command_line(stack: Environment) -> None:
    keys = [str(stack.prefect_auth_string), str(stack.mlflow_token), str(stack.s3_secret_key)]
    lines = [" ".join(process.cmdline()) for process in started(stack)]
    lines += [path.read_text(errors="replace") for path in (stack.stack / "logs").glob("*.log")]
    assert len(set(keys)) == 3
    assert not [key for key in keys for line in lines if key in line]
    said = subprocess.run(
        [sys.executable, "-c", "from erv.cli import main; main()", "stack", "key"],
        cwd=stack.workspace,
        env=child_environment(stack),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [
        f"MLflow   user erv, password {stack.mlflow_token}",
        f"Prefect  {stack.prefect_auth_string}",
    ]


def test_nobody_else_can_read_what_the_servers_store(stack: Environment, kept: str) -> None:
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [stack.state, *stack.state.rglob("*")]}
    assert modes[stack.state] == 0o700
    data = [path for path in modes if path.suffix in (".db", ".dat", ".idx", ".log", ".pem", ".toml")]
    assert {path.suffix for path in data} == {".db", ".dat", ".idx", ".log", ".pem", ".toml"}
    loose = {path: oct(modes[path]) for path in data if modes[path] & 0o077}
    assert loose == {}


def test_a_folder_that_an_older_version_left_open_is_closed(tmp_path: Path) -> None:
    database = tmp_path / ".erv" / "stack" / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_text("runs")
    outside = tmp_path / "outside"
    outside.write_text("the user's own")
    (database.parent / "link").symlink_to(outside)
    for path in (tmp_path / ".erv", database.parent.parent, database.parent):
        path.chmod(0o755)
    database.chmod(0o644)
    outside.chmod(0o644)
    keep_private(Environment(tmp_path))
    closed = (tmp_path / ".erv", database.parent, database, outside)
    assert [stat.S_IMODE(path.stat().st_mode) for path in closed] == [0o700, 0o700, 0o600, 0o644]


def test_an_upgraded_workspace_gets_keys_and_keeps_what_it_has(stack: Environment) -> None:
    """`stack.env` of an older version has no keys for MLflow and Prefect; all else in it stays."""
    text = stack.stack_file.read_text()
    older = [line for line in text.splitlines() if "MLFLOW_TOKEN" not in line and "AUTH_STRING" not in line]
    try:
        stack.stack_file.write_text("\n".join(older) + "\n")
        assert load_environment(stack.workspace, process={}).prefect_auth_string is None
        planned, _ = control._plan(stack.workspace, ("s3", "mlflow", "prefect"))
    finally:
        stack.stack_file.write_text(text)
    assert planned.prefect_auth_string
    assert planned.mlflow_token
    changed = {"ERV_MLFLOW_TOKEN", "ERV_PREFECT_AUTH_STRING"}
    assert {k: v for k, v in planned.variables().items() if k not in changed} == {
        k: v for k, v in stack.variables().items() if k not in changed
    }


def test_many_ask_prefect_at_the_same_moment(stack: Environment) -> None:
    """Each request had its token under one name, and could end that of another: answered with 403."""

    def several(_: int) -> list[object]:
        return [prefect_api.ask(stack, "/flow_runs/filter", {"limit": 1}) for _ in range(15)]

    with ThreadPoolExecutor(6) as threads:
        assert all(len(answers) == 15 for answers in threads.map(several, range(6)))
