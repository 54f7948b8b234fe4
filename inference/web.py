"""Photos on the web: fetched within limits, and named without their passwords."""

import asyncio
import re

from tasks.images import UndecodableError

MAX_BYTES = 256 << 20  # of one photo; more is refused unread
CONNECT_SECONDS, READ_SECONDS = 10.0, 20.0  # READ_SECONDS: between two pieces of an answer
DOWNLOAD_SECONDS = 120.0  # for one photo altogether
IS_URL = re.compile(r"https?://", re.IGNORECASE)
IS_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def download(url: str) -> bytes:
    """Return what an http(s) URL holds.

    Raises:
        UndecodableError: It cannot be had, within the limits above.
    """
    import httpx

    try:
        return asyncio.run(_download(url))
    except httpx.TimeoutException:
        raise UndecodableError("unreachable", "no answer in time") from None
    except TimeoutError:
        raise UndecodableError("unreachable", f"not finished after {DOWNLOAD_SECONDS:.0f} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
        raise UndecodableError("unreachable", _in_words(error)) from None


async def _download(url: str) -> bytes:
    """Download with one deadline for all of it, which a server that sends a byte at a time cannot put off."""
    import httpx

    address, content = httpx.URL(url), bytearray()
    auth = httpx.BasicAuth(address.username, address.password) if address.userinfo else None
    address = address.copy_with(username=None, password=None)  # httpx logs the address it asks
    async with (
        asyncio.timeout(DOWNLOAD_SECONDS),
        httpx.AsyncClient(
            follow_redirects=True, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        ) as client,
        client.stream("GET", address, auth=auth) as response,
    ):
        if not response.is_success:
            said = f"{response.status_code} {response.reason_phrase}"
            raise UndecodableError("unreachable", f"the server answers {said}")
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                raise too_large()
    return bytes(content)


def too_large() -> UndecodableError:
    """Return what says that a photo is beyond `MAX_BYTES`."""
    return UndecodableError("too_large", f"more than {MAX_BYTES >> 20} MiB")


def _in_words(error: Exception) -> str:
    """Say what went wrong, in words of ours: httpx's may have the address in them, with its password."""
    import httpx

    words: dict[type[Exception], str] = {
        httpx.TooManyRedirects: "it redirects in a circle",
        httpx.UnsupportedProtocol: "it leads to no http(s) address",
        httpx.NetworkError: "no connection",
        httpx.ProxyError: "the proxy refuses",
        httpx.ProtocolError: "the server breaks off, or is no web server",
        httpx.DecodingError: "the answer is damaged",
        httpx.InvalidURL: "no valid address",
        ImportError: "a SOCKS proxy is set, and those are not supported",
    }
    return next((said for kind, said in words.items() if isinstance(error, kind)), type(error).__name__)
