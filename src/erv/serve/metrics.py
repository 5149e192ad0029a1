"""What Prometheus reads: requests, waiting and answering ones, tokens, times, restarts and reloads."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from erv.answering.events import Done
from erv.serve.engine import Engine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
# Addresses are counted by these names alone, so that a client can't make up new ones.
_KNOWN = (
    "/v1/chat/completions",
    "/v1/models",
    "/explain",
    "/health",
    "/ready",
    "/metrics",
    "/docs",
    "/openapi.json",
)


class Metrics:
    """The metrics of one server.

    Args:
        engine: is asked when they are read.
    """

    def __init__(self, engine: Engine) -> None:
        # A second series for each, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_OfEngine(engine))
        self._requests = Counter(
            "erv_requests", "Requests by address and status.", ["path", "status"], registry=self._registry
        )
        self._answers = Counter("erv_answers", "Clips that were answered.", registry=self._registry)
        self._tokens = Counter("erv_tokens", "Tokens, read and written.", ["kind"], registry=self._registry)
        self._first = Histogram(
            "erv_first_token_seconds", "From the request to the first token.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._total = Histogram(
            "erv_answer_seconds", "From the request to the whole answer.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._left = Counter("erv_clients_left", "Requests whose client left.", registry=self._registry)
        self._limited = Counter(
            "erv_rate_limited",
            "Requests refused because their client sent too many.",
            registry=self._registry,
        )

    def answered(self, done: Done) -> None:
        """Counts an answer."""
        self._answers.inc()
        self._tokens.labels("read").inc(done.usage.prompt_tokens)
        self._tokens.labels("written").inc(done.usage.completion_tokens)
        if done.seconds.first_token is not None:
            self._first.observe(done.seconds.first_token)
        self._total.observe(done.seconds.total)

    def left(self) -> None:
        """Counts a client that left before its answer was there."""
        self._left.inc()

    def limited(self) -> None:
        """Counts a request beyond the rate of its client."""
        self._limited.inc()

    def asked(self, path: str, status: int) -> None:
        """Counts a request."""
        self._requests.labels(path if path in _KNOWN else "other", str(status)).inc()

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self._registry)


class CountedRequests:
    """Counts the requests to a server by the status of their answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.asked(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, counted)


class _OfEngine(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine, self._since = engine, time.time()

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily]:
        engine = self._engine
        yield GaugeMetricFamily("erv_waiting", "Waiting requests.", value=engine.waiting)
        yield GaugeMetricFamily("erv_answering", "Requests that are being answered.", value=engine.answering)
        yield GaugeMetricFamily("erv_ready", "Whether requests are answered.", value=float(engine.ready))
        yield GaugeMetricFamily("erv_started_seconds", "When the server was started.", value=self._since)
        counts = engine.counts
        yield CounterMetricFamily("erv_restarts", "Processes that died and were replaced.", counts.restarts)
        yield CounterMetricFamily("erv_reloads", "Versions that took another's place.", counts.reloads)
        yield CounterMetricFamily(
            "erv_failed_reloads", "Versions that could not be loaded.", counts.failed_reloads
        )
        yield InfoMetricFamily("erv_version", "The version that answers.", value=engine.version.as_dict())
