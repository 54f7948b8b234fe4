"""What the service refuses: bodies too large, too slow or too many, and requests that a foreign web page makes."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 10.0  # for a whole body: 10 MB at 8 Mbit/s
LINGER_SECONDS = 5.0  # for who was refused to finish writing, and then to read the refusal
BODIES_AT_ONCE = 32  # of the largest size: what is held in memory and in temporary files until it is answered
MAX_FILES = 32  # in one request
LONGEST_NAME = 255
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
RAW_TYPES = ("image/", "application/octet-stream")
HOW_TO_SEND = "send multipart/form-data with `file`, or the image's bytes as image/* or application/octet-stream"


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: Of HTTP.
        reason: In one word, for programs and counters.
        message: In one line, for who sent it.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class SentFile(NamedTuple):
    """One file of a request; a body that is the image itself has no name."""

    name: str | None
    content: bytes


class Bodies:
    """The bodies that are being received or answered, none larger, slower or more of them than allowed.

    Attributes:
        held: Bytes of all requests together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held = 0

    @asynccontextmanager
    async def files(self, request: Request) -> AsyncIterator[list[SentFile]]:
        """Yield the files that a request sends; until the block ends, they count as held.

        Raises:
            RefusedError: With status 408, 413, 415, 422 or 503.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        read = 0

        async def receive() -> Message:
            nonlocal read
            message = await request.receive()
            size = len(message.get("body", b""))
            read += size
            self.held += size
            if read > self._max_bytes:
                raise self._too_large()
            if self.held > BODIES_AT_ONCE * self._max_bytes:
                raise RefusedError(503, "busy", "too much is being sent at once: try again in a moment")
            return message

        try:
            yield await self._in_time(Request(request.scope, receive))
        finally:
            self.held -= read

    async def _in_time(self, request: Request) -> list[SentFile]:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read_files(request)
        except TimeoutError:
            message = f"the body did not arrive within {BODY_SECONDS:g} seconds: send it faster, or a smaller photo"
            raise RefusedError(408, "slow_body", message) from None
        except ClientDisconnect:
            raise RefusedError(400, "disconnected", "the client went away") from None

    def _too_large(self) -> RefusedError:
        limit = f"{self._max_bytes / 1e6:g} MB"
        return RefusedError(413, "body_too_large", f"a request may have {limit}: send a smaller photo, or fewer")


async def _read_files(request: Request) -> list[SentFile]:
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request)
    if kind.startswith(RAW_TYPES):
        async with aclosing(request.stream()) as stream:
            return [SentFile(None, b"".join([chunk async for chunk in stream]))]
    raise RefusedError(415, "content_type", f"{_shown(kind)} is not understood: {HOW_TO_SEND}")


async def _read_form(request: Request) -> list[SentFile]:
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
            return await _read_uploads(form)
    except HTTPException as error:  # what Starlette says of a form that it cannot read
        raise RefusedError(422, "form", f"{error.detail.rstrip('.')}: {HOW_TO_SEND}") from None
    except UnicodeError:  # a charset that Python has and no form is written in
        raise RefusedError(422, "form", f"its charset is not understood: {HOW_TO_SEND}") from None


async def _read_uploads(form: FormData) -> list[SentFile]:
    uploads = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
    if not uploads:
        raise RefusedError(422, "form", f"the form has no file named `file`: {HOW_TO_SEND}")
    return [SentFile(_shown(upload.filename or ""), await upload.read()) for upload in uploads]


def _shown(text: str) -> str:
    """Return what can be written as UTF-8, and not too much of it."""
    return text[:LONGEST_NAME].encode("utf-8", "replace").decode()


def check_asker(request: Request, hosts: Collection[str] | None) -> None:
    """Refuse what a foreign web page has the user's browser send.

    Args:
        request: Its `Host` is the name in the browser's address bar: a foreign one means that somebody's domain was
            pointed at this machine (DNS rebinding). `Sec-Fetch-Site` and `Origin` are the browser's word on whose page
            asks.
        hosts: The names that are ours; None allows any.

    Raises:
        RefusedError: With status 403.
    """
    host = request.headers.get("host", "")
    if hosts is not None and host_name(host) not in hosts:
        raise RefusedError(
            403, "host", "not a host name of this service: ask for its address, or have the proxy send that as Host"
        )
    if request.method == "POST" and not _is_of_no_other_page(request.headers, host):
        raise RefusedError(403, "cross_site", "a page of another site may not send photos here")


def _is_of_no_other_page(headers: Headers, host: str) -> bool:
    """Believe `Sec-Fetch-Site` first, as proxies change `Host`; over plain http to others, browsers leave it out."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == host


def own_hosts(host: str, address: str) -> frozenset[str] | None:
    """Return the names by which a service may be asked for; None is any, where it listens on every address.

    Args:
        host: Where it was told to listen.
        address: The IP address that this is.
    """
    found = ipaddress.ip_address(address)
    if found.is_unspecified:
        return None  # by the names of all networks that the machine is in, and nobody knows them here
    ours = {host, address} if found.is_loopback else {host, address, socket.gethostname(), socket.getfqdn()}
    return LOCAL_HOSTS | {name.lower() for name in ours}


def host_name(host: str) -> str | None:
    """Return the name in a `Host` header, without the port; None where there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Linger:
    """ASGI middleware: who is answered before the whole body came may finish writing it before the connection closes.

    A connection that is closed with bytes unread is reset, and the reset overtakes the answer: the client would see a
    broken connection instead of the reason.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = not _has_body(scope)

        async def watched_receive() -> Message:
            nonlocal received
            message = await receive()
            received = received or not message.get("more_body", False)  # a disconnect has no more either
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start" and not received:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            if message["type"] == "http.response.body" and not message.get("more_body", False) and not received:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_SECONDS):
                        while not received:
                            await watched_receive()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, watched_receive, watched_send)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
