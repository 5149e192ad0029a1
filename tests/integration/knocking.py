"""Knocks at ports: what a page of another address, or another user without keys, gets to read or change."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

PAGE = "http://evil.example"
REFUSED = {400, 401, 403, 404, 405}
_SECONDS = 5.0
_JSON = "application/json"


@dataclass(frozen=True)
class Request:
    """What is asked."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _post(path: str, body: bytes, kind: str = _JSON) -> Request:
    return Request("POST", path, body, {"Content-Type": kind})


def _form(path: str) -> Request:
    parts = [(b"key", b"planted.txt"), (b"file", b"planted")]
    start = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n'
    body = b"".join(start % part for part in parts)
    return _post(path, body + b"--x--\r\n", "multipart/form-data; boundary=x")


def requests(bucket: str, name: str) -> list[Request]:
    """Reads, writes and deletions of all the servers we know; every port is asked all of them."""
    key, artifact = f"/{bucket}/{name}", f"/api/2.0/mlflow-artifacts/artifacts/{name}"
    mlflow, ajax = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
    needle = "/1,01637037d6"
    reads = [
        *("/", "/version", "/ui-settings", "/metrics", "/debug/pprof/", "/debug/vars", "/healthz", "/health"),
        *("/api/health", "/api/admin/version", "/api/admin/settings", "/api/csrf-token?client=x"),
        *(f"{mlflow}/experiments/search?max_results=5", f"{ajax}/experiments/search?max_results=5"),
        *(f"{mlflow}/registered-models/search", artifact, "/get-artifact?path=x&run_uuid=y"),
        *(key, f"/{bucket}", f"/{bucket}?list-type=2", f"/buckets{key}", f"/buckets/{bucket}/?limit=9"),
        *("/dir/status", "/dir/assign", "/dir/lookup?volumeId=1", "/cluster/status", "/vol/status"),
        *("/status", "/stats/health", "/stats/counter", "/stats/disk", "/ui/index.html", needle),
        # FastAPI's pages load scripts from elsewhere, which could read the key that the browser keeps.
        *("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/api/docs", "/api/openapi.json"),
        # These change things although they are GETs.
        *("/vol/grow?count=1", f"/col/delete?collection={bucket}", "/vol/vacuum", "/dir/assign?count=2"),
    ]
    writes = [
        _post("/api/flows/", b'{"name": "planted"}'),
        _post("/api/flows/filter", b"{}"),
        _post("/api/deployments/filter", b"{}"),
        _post("/api/work_pools/", b'{"name": "planted", "type": "process"}'),
        _post(f"{mlflow}/experiments/create", b'{"name": "planted"}'),
        _post(f"{ajax}/experiments/create", b'{"name": "planted"}'),
        _post(f"{mlflow}/experiments/delete", b'{"experiment_id": "0"}'),
        # A form of a page needs no preflight; neither does a body sent as text.
        _post("/api/flows/", b'{"name": "planted"}', "text/plain"),
        _post(f"{mlflow}/experiments/create", b'{"name": "planted"}', "text/plain"),
        _form("/submit"),
        _form(f"/{bucket}"),
        _form(f"/buckets/{bucket}/"),
        _form(needle),
        *(Request("PUT", path, b"planted") for path in (artifact, key, f"/buckets{key}", needle)),
        *(Request("DELETE", path) for path in (artifact, key, f"/buckets{key}", needle)),
        Request("DELETE", f"/buckets/{bucket}?recursive=true&ignoreRecursiveError=true"),
        Request("DELETE", f"/{bucket}"),
        Request("DELETE", "/api/work_pools/erv"),
    ]
    return [*(Request("GET", path) for path in reads), *writes]


def as_page(request: Request) -> list[Request]:
    """How a browser sends a request of a page of another address, its preflight included."""
    preflight = {
        "Origin": PAGE,
        "Access-Control-Request-Method": request.method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    sent = Request(request.method, request.path, request.body, {**request.headers, "Origin": PAGE})
    return [Request("OPTIONS", request.path, b"", preflight), sent]


def ask(port: int, request: Request, tls: ssl.SSLContext | None = None) -> tuple[int, Mapping[str, str]]:
    """Status and headers of the answer; 0 if the connection is refused, or closed without an answer."""
    kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    options = {"context": tls} if tls else {}
    connection = kind("127.0.0.1", port, timeout=_SECONDS, **options)  # type: ignore[arg-type]
    try:
        connection.request(request.method, request.path, request.body or None, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()


def without_certificate() -> ssl.SSLContext:
    """TLS of a client that trusts everybody and shows no certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# Calls that read, write and delete. What they say doesn't matter: a server that answers at all has let us in.
CALLS = (
    "/filer_pb.SeaweedFiler/ListEntries",
    "/filer_pb.SeaweedFiler/CreateEntry",
    "/filer_pb.SeaweedFiler/DeleteEntry",
    "/master_pb.Seaweed/Assign",
    "/master_pb.Seaweed/CollectionDelete",
    "/volume_server_pb.VolumeServer/DeleteCollection",
    "/volume_server_pb.VolumeServer/ReadVolumeFileStatus",
    "/messaging_pb.SeaweedS3IamCache/PutIdentity",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)


def call(port: int, path: str, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a gRPC call with an empty message gets an answer from the service, be it an error."""
    config = h2.config.H2Configuration(client_side=True)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "https" if tls else "http"), (":path", path)]
    headers += [(":authority", f"127.0.0.1:{port}"), ("te", "trailers"), ("content-type", "application/grpc")]
    connection.send_headers(1, headers)
    connection.send_data(1, b"\0\0\0\0\0", end_stream=True)
    try:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as plain:
            stream = tls.wrap_socket(plain) if tls else plain
            with stream:
                stream.settimeout(_SECONDS)
                stream.sendall(connection.data_to_send())
                events = _events(stream, connection)
                return any(isinstance(event, h2.events.ResponseReceived) for event in events)
    except (OSError, h2.exceptions.ProtocolError):
        return False


def _events(stream: socket.socket, connection: h2.connection.H2Connection) -> Iterator[h2.events.Event]:
    while data := stream.recv(65536):
        yield from connection.receive_data(data)
        stream.sendall(connection.data_to_send())


def faults(
    port: int, asked: list[Request], may_read: tuple[str, ...] = (), *, public_refusals: bool = False
) -> list[str]:
    """What a port lets in that it should not; empty if it is closed.

    Args:
        port: on 127.0.0.1.
        asked: what to ask, from `requests`.
        may_read: paths that everyone may GET.
        public_refusals: whether a page may read that it was refused, and what everyone may GET.
    """
    found = []

    def allowed(request: Request) -> bool:
        return request.method == "GET" and request.path.partition("?")[0] in may_read

    def note(who: str, request: Request, tls: ssl.SSLContext | None, open_: bool = False) -> None:
        status, headers = ask(port, request, tls)
        if status and status not in REFUSED and not (open_ and status < 400):
            found.append(f"port {port}: {request} of {who} is answered with {status}")
        if public_refusals and request.method != "OPTIONS" and (status in REFUSED or open_):
            return
        if headers.get("access-control-allow-origin") in ("*", PAGE):
            found.append(f"port {port}: a page of {PAGE} may read the answer to {request}")

    for tls in (None, without_certificate()):
        for request in asked:
            note("another user", request, tls, allowed(request))
            # After DNS rebinding, the page's own name leads to this port: no Origin with a GET, that Host.
            host = {**request.headers, "Host": f"evil.example:{port}"}
            rebound = Request(request.method, request.path, request.body, host)
            note("a page with a rebound name", rebound, tls, allowed(request))
            for sent in as_page(request):
                note("a page", sent, tls, allowed(request))
        found += [f"port {port}: {path} is answered" for path in CALLS if call(port, path, tls)]
    return found
