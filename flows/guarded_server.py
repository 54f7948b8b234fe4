"""Prefect's server, as `pawline ui` starts it: for this project's commands and its own page, and no other page.

By itself it answers whatever name it is asked for, and a WebSocket from any page; neither is a matter of CORS. A domain
that was pointed at this machine, or a page that opens a WebSocket, could then drive the server, and through it the
worker. Host, port and all else are Prefect's own settings.

    python -m flows.guarded_server
"""

import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.heap import keep_trimming
from flows.server import PAGE_HEADERS
from inference.service_limits import host_name, own_hosts


class Guard:
    """ASGI middleware: refuse, over HTTP and WebSockets, foreign host names and what pages of other sites ask.

    Attributes:
        hosts: The names that may be asked for; None is any.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        refusal = self._refusal(Headers(scope=scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        if refusal is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})  # a 403, as none was accepted
        else:
            await JSONResponse({"detail": refusal}, status_code=403)(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and host_name(host) not in self.hosts:
            return "not a host name of this server: ask for its address"
        if origin is not None and origin.partition("://")[2] != host:  # a browser's word on whose page asks
            return "a page of another site may not ask this server"
        return None


def main() -> None:
    """Run the server until it is told to end, as `prefect server start` does."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings

    from flows.server_database import bound_cache

    keep_trimming()
    bound_cache(PREFECT_API_DATABASE_CONNECTION_URL.value())
    settings = get_current_settings().server
    host = settings.api.host
    address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    uvicorn.run(
        Guard(create_app(final=True), own_hosts(host, address)),  # around it: the server asks itself things, too
        host=host,
        port=settings.api.port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
