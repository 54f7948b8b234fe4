"""The HTTP service: photos in, answers out, with a page to drop photos on."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.answers import UNSURE
from inference.classifier import Classifier
from inference.service_answers import BODY, REFUSALS, Answer, Answers, Health, ModelFacts, Problem, Refusal, Unreadable
from inference.service_desk import Desk, Probabilities
from inference.service_limits import Bodies, Linger, RefusedError, SentFile, check_asker
from inference.service_metrics import Counted, Metrics
from tasks.images import UndecodableError

PAGE = Path(__file__).with_name("page.html")
RETRY_AFTER = {"Retry-After": "1"}  # seconds
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Served:
    """What is served, and how.

    Attributes:
        classifier: A loaded one.
        name: What the model is called.
        digest: By which `pawline lineage` finds the model again.
        max_bytes: The largest body of a request.
        unsure_below: A likeliest class less probable than this is not named; None names it always.
        hosts: The host names that may be asked for; None is any.
    """

    classifier: Classifier
    name: str
    digest: str
    max_bytes: int
    unsure_below: float | None
    hosts: frozenset[str] | None


class Service:
    """What is answered on each path."""

    def __init__(self, served: Served) -> None:
        classifier = served.classifier
        self.metrics = Metrics()
        self.metrics.model.labels(served.name, served.digest).set(1)
        self.desk = Desk(classifier)
        self._bodies = Bodies(served.max_bytes)
        self._served = served
        self._model = ModelFacts(
            name=served.name,
            digest=served.digest,
            engine=classifier.engine,
            precision=classifier.precision,
            labels=classifier.labels,
        )
        self._page = PAGE.read_text(encoding="utf-8")
        self._page_headers = {**HEADERS, "Content-Security-Policy": page_policy(self._page)}

    async def page(self) -> Response:
        """Return the page to drop photos on."""
        return HTMLResponse(self._page, headers=self._page_headers)

    async def predict(self, request: Request) -> Answers:
        """Say what each photo shows: send one `file` or several in a form, or one photo as the body."""
        self.desk.check_room()
        async with self._bodies.files(request) as files:
            results = await self.desk.answer([file.content for file in files])
        answers = [self._answer(file, result) for file, result in zip(files, results, strict=True)]
        if all(isinstance(answer, Unreadable) for answer in answers):
            raise _nothing_readable(results)
        for answer in answers:
            if isinstance(answer, Unreadable):
                self.metrics.refused.labels(answer.error.reason).inc()
            else:
                self.metrics.images.labels(answer.label).inc()
        return Answers(model=self._model, answers=answers)

    async def health(self, response: Response) -> Health:
        """Say whether photos would be answered now: with status 200, else 503."""
        try:
            self.desk.check_room()
        except RefusedError as refused:
            response.status_code = refused.status
            response.headers.update(RETRY_AFTER)
            return Health(ready=False, model=self._model)
        return Health(ready=True, model=self._model)

    async def counted(self) -> Response:
        """Return the counters, for Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def refuse(self, _: Request, error: Exception) -> Response:
        """Turn an error into a status and one line."""
        headers = dict(HEADERS)
        if isinstance(error, RefusedError):
            status, problem = error.status, Problem(reason=error.reason, message=error.message)
            headers |= RETRY_AFTER if status == 503 else {}
        elif isinstance(error, HTTPException):  # what FastAPI itself refuses
            status, problem = error.status_code, Problem(reason="request", message=error.detail)
            headers |= error.headers or {}
        else:
            status, problem = 500, Problem(reason="internal", message="the service failed: its log says why")
            headers["Connection"] = "close"  # as uvicorn does after a failure, but would not say
        self.metrics.refused.labels(problem.reason).inc()
        return JSONResponse(Refusal(error=problem).model_dump(), status, headers)

    def _answer(self, file: SentFile, result: Probabilities | UndecodableError) -> Answer | Unreadable:
        if isinstance(result, UndecodableError):
            return Unreadable(name=file.name, error=Problem(reason=result.reason, message=result.evidence))
        by_class = {name: round(float(prob), 6) for name, prob in zip(self._model.labels, result, strict=True)}
        label = self._model.labels[int(result.argmax())]
        unsure = self._served.unsure_below is not None and result.max() < self._served.unsure_below
        return Answer(
            name=file.name, label=UNSURE if unsure else label, probability=by_class[label], probabilities=by_class
        )


class Guarded:
    """ASGI middleware: on every path, FastAPI's own and those that are none too, who may ask and what answers carry."""

    def __init__(self, app: ASGIApp, service: Service, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._service = service
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back, or refuse what a foreign page has the user's browser send."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer, request = self._app, Request(scope)
        try:
            check_asker(request, self._hosts)
        except RefusedError as refused:
            answer = await self._service.refuse(request, refused)
        await answer(scope, receive, send_guarded)


def create_app(served: Served) -> FastAPI:
    """Return the service as an ASGI application; it opens no socket.

    There is no `/docs`: FastAPI's page loads its scripts from another site. `/openapi.json` says the same.
    """
    service = Service(served)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Metrics]]:
        yield {"metrics": service.metrics}
        service.desk.close()

    app = FastAPI(
        title="Pawline",
        description="Photos in, classes out.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={kind: service.refuse for kind in (RefusedError, HTTPException, Exception)},
    )
    app.add_api_route("/", service.page, methods=["GET", "HEAD"], include_in_schema=False)
    body = {"requestBody": BODY}
    app.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra=body, responses=REFUSALS)
    app.add_api_route("/healthz", service.health, responses={503: {"model": Health, "description": "Not now."}})
    app.add_api_route("/metrics", service.counted, response_class=Response)
    paths = {"/", "/predict", "/healthz", "/metrics", "/openapi.json"}
    app.add_middleware(Guarded, service=service, hosts=served.hosts)
    app.add_middleware(Counted, metrics=service.metrics, paths=paths)
    app.add_middleware(Linger)
    return app


def page_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page: its own style and script, and nothing from anywhere else."""
    allowed = {
        kind: " ".join(_source_hash(text) for text in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL))
        for kind in ("style", "script")
    }
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _nothing_readable(results: Sequence[Probabilities | UndecodableError]) -> RefusedError:
    problems = [result for result in results if isinstance(result, UndecodableError)]
    first = problems[0]
    if len(problems) == 1:
        return RefusedError(422, first.reason, first.evidence)
    return RefusedError(422, first.reason, f"none of {len(problems)} files can be read; the first: {first.evidence}")
