"""What the service counts, for Prometheus: in a registry of its own, so that nothing else of the process is in it."""

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER = "other"  # for paths that are not ours: a label of them all could be made to grow for ever
SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("pawline_requests", "Requests, by status.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "pawline_request_seconds", "From headers to answer.", ["path"], buckets=SECONDS, registry=own
        )
        self.in_flight = Gauge("pawline_requests_in_flight", "Requests not yet answered.", registry=own)
        self.images = Counter("pawline_images", "Images answered, by answer.", ["answer"], registry=own)
        self.refused = Counter("pawline_refused", "Requests and images refused.", ["reason"], registry=own)
        self.model = Gauge("pawline_model", "1 for the model that answers.", ["name", "digest"], registry=own)


class Counted:
    """ASGI middleware that counts and times requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else OTHER
        status = 500  # unless an answer begins
        began = time.perf_counter()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, watched_send)
            finally:
                self._metrics.requests.labels(path, status).inc()
                self._metrics.seconds.labels(path).observe(time.perf_counter() - began)
