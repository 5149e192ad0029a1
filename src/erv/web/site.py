"""A server of our own, behind everything that all of them need."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.types import ASGIApp

from erv.web.draining import DrainedBodies
from erv.web.errors import answer_errors, refusal
from erv.web.gate import HEALTH, guarded
from erv.web.headers import SafeHeaders
from erv.web.limits import LimitedBodies


def site(
    app: Starlette,
    *,
    hosts: Collection[str],
    most_bytes: int,
    key: str | Collection[str] | None = None,
    open_paths: Collection[str] = (HEALTH,),
    realm: str = "erv",
    remedy: str = "bring it as a bearer token or as a password",
    allow: Sequence[str] = (),
) -> ASGIApp:
    """An application (Starlette or FastAPI) behind gate, limits and headers, with errors in a sentence.

    Args:
        app: it is changed: its errors are answered by `erv.web.errors`.
        hosts: see `erv.web.run.hosts_of`.
        most_bytes: the largest body of a request.
        key: see `erv.web.gate.guarded`.
        open_paths: see there.
        realm: see there.
        remedy: see there.
        allow: features that its pages may ask the user for, see `erv.web.headers.SafeHeaders`.

    Raises:
        ValueError: no hosts, an empty key, an unknown feature, or a limit that isn't above 0.
    """
    if not hosts:
        raise ValueError("a server of ours needs the names that it answers by")
    answer_errors(app)
    limited = LimitedBodies(app, most_bytes, refusal)
    gate = guarded(limited, hosts, key, open_paths=open_paths, realm=realm, remedy=remedy, refusal=refusal)
    return DrainedBodies(SafeHeaders(gate, allow))
