"""The application of `erv serve`: its addresses, and what stands before them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from erv import __version__
from erv.serve.chat import chat_routes
from erv.serve.description import operations
from erv.serve.engine import Engine
from erv.serve.explain import explain_routes
from erv.serve.metrics import CONTENT_TYPE, CountedRequests, Metrics
from erv.serve.rates import Buckets, LimitedRate
from erv.serve.schemas import Failure
from erv.serve.service import Service
from erv.web.errors import Refused
from erv.web.gate import HEALTH
from erv.web.pages import STATIC, Pages, Static
from erv.web.site import site

KEY_VARIABLE = "ERV_SERVE_KEY"
READY = "/ready"
OPEN_PATHS = (HEALTH, READY)  # they say no more than that
_ERRORS = {"4XX": "The request is at fault.", "5XX": "The server is."}


def application(engine: Engine, *, batch: int, seconds: float, buckets: Buckets) -> FastAPI:
    """The application, to be put behind `gated`.

    Args:
        engine: answers; whoever made it closes it.
        batch: requests that are answered together.
        seconds: within which a request must be answered.
        buckets: how many requests each client may send.
    """
    metrics = Metrics(engine)
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure, "description": text} for status, text in _ERRORS.items()
    }
    app = FastAPI(
        title="erv serve",
        version=__version__,
        summary="Explains the emotion in a clip, and says whether the explanation agrees with the answer.",
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        responses=errors,
    )
    app.add_middleware(LimitedRate, buckets=buckets, on_refused=metrics.limited)
    app.state.metrics = metrics
    service = Service(engine, metrics, batch=batch, seconds=seconds)
    app.include_router(explain_routes(service))
    app.include_router(chat_routes(service))
    _add_state(app, engine, metrics)
    _add_page(app, engine)
    return app


def gated(app: FastAPI, *, hosts: Collection[str], most_bytes: int, keys: Collection[str]) -> ASGIApp:
    """The application behind its gate; what the gate refuses is counted, too.

    Args:
        app: from `application`.
        hosts: see `erv.web.run.hosts_of`.
        most_bytes: the largest body of a request.
        keys: what clients bring; with none, everyone is let in.
    """
    guarded = site(
        app,
        hosts=hosts,
        most_bytes=most_bytes,
        key=keys or None,
        open_paths=OPEN_PATHS,
        realm="erv serve",
        remedy=f"it is in {KEY_VARIABLE} of whoever runs this server",
    )
    return CountedRequests(guarded, app.state.metrics)


def _add_state(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get(HEALTH, tags=["State"])
    async def health() -> dict[str, str]:
        """The server is there. Needs no key."""
        return {"status": "ok"}

    @app.get(READY, tags=["State"])
    async def ready() -> dict[str, bool]:
        """Requests are answered now; 503 while the model is started again. Needs no key."""
        if not engine.ready:
            raise Refused(503, "the model is being started again", code="model_unavailable")
        return {"ready": True}

    @app.get("/metrics", tags=["State"], response_class=Response)
    async def read_metrics() -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI, engine: Engine) -> None:
    pages = Pages("erv.serve")
    app.mount(STATIC, Static())

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return pages.page(
            "serve/docs.html.j2",
            address=str(request.base_url).rstrip("/"),
            key=" -H 'Authorization: Bearer KEY'" if "user" in request.scope else "",
            version=engine.version,
            ready=engine.ready,
            waiting=engine.waiting,
            operations=operations(app.openapi()),
        )
