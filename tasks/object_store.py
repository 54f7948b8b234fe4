"""Object stores (S3, Google Cloud Storage, Azure), through fsspec: how one is opened, and what its refusals mean.

Credentials are found where each store's own tools look for them: in the environment, in a profile, in what the machine
is allowed. `FSSPEC_S3_ANON=true` in the environment reads a public bucket without any (fsspec's own convention).
"""

import errno
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tasks.stage import PawlineError, TemporaryError
from tasks.store_urls import CREDENTIALS, scheme_of, without_secrets

EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}  # what to install for each kind of URL
# Seconds to connect, and between two reads. Of tries there are few, because who reads pauses and tries again.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}}
}
MOST_LETTERS = 160  # of what a library says
# The errors of the libraries below fsspec that are no OSErrors, and those of them that may pass.
FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
    ("aiohttp", "ClientError"),
    ("asyncssh", "Error"),
)
PASSING = (
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "ConnectionError"),
    ("google.auth.exceptions", "TransportError"),
    ("azure.core.exceptions", "ServiceRequestError"),
    ("azure.core.exceptions", "ServiceResponseError"),
    ("aiohttp", "ClientError"),
)
LASTING_ERRNOS = frozenset({errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EREMCHG, errno.ENOTDIR, errno.EROFS})


class Store(NamedTuple):
    """An opened store."""

    fs: Any  # fsspec ships no types
    path: str  # bucket and key, without a slash at the end
    url: str


def open_store(url: str) -> Store:
    """Open the store that a URL names, without asking it anything yet.

    Raises:
        PawlineError: What reads such URLs is not installed, or it lacks credentials.
    """
    import fsspec

    scheme, _, path = url.partition("://")
    scheme = scheme.lower()
    # What was listed before must not be taken for what is there now.
    options = {"skip_instance_cache": True, "use_listings_cache": False, **OPTIONS.get(scheme, {})}
    try:
        with one_line_errors(url):
            fs = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise PawlineError(needs_extra(url, EXTRAS[scheme])) from error
    except ValueError as error:  # of adlfs, which knows no account
        raise PawlineError(f"{url} cannot be used ({error}): {CREDENTIALS[scheme]}") from error
    return Store(fs, path.rstrip("/"), url)


def needs_extra(what: str, extra: str) -> str:
    """Return what to say when the library for a kind of URL is missing."""
    return f'{what} needs a library that is not installed: `pip install "pawline[{extra}]"`'


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turn what a store and the libraries in between say into one line.

    Args:
        url: What was asked for; it names the store in the message.

    Raises:
        TemporaryError: The network or the store failed, and may work again.
        PawlineError: It is not there, or access is refused.
    """
    try:
        yield
    except store_errors() as error:
        raise explained(url, error) from None


def store_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the libraries that are in use: none can come from one that was never imported."""
    return (OSError, *_loaded(FOREIGN))


def explained(url: str, error: Exception) -> PawlineError:
    """Return what an error of a store means, and what to do, in one line."""
    said = (
        textwrap.shorten(without_secrets(str(error)), MOST_LETTERS, placeholder=" ...").rstrip(".")
        or type(error).__name__
    )
    hint = CREDENTIALS.get(scheme_of(url), "check who may read and write there")
    if isinstance(error, FileNotFoundError):
        return PawlineError(f"{url} does not exist ({said}): check its name")
    if isinstance(error, PermissionError):
        return PawlineError(f"{url} refuses access ({said}): {hint}")
    if isinstance(error, _loaded(PASSING)) or (isinstance(error, OSError) and error.errno not in LASTING_ERRNOS):
        return TemporaryError(f"{url} cannot be reached ({said}): check the network and the address, and try again")
    if isinstance(error, OSError):
        return PawlineError(f"{url} cannot be used ({said}): check the address, the region and the names")
    return PawlineError(f"{url} cannot be used ({said}): {hint}")


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)
