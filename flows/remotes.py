"""DVC's remotes, where machines share the files of versions: set up, listed and tried.

A remote is DVC's own, in `.dvc/config`; nothing here is needed to use one that `dvc remote add` made.
"""

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.fs import get_cloud_fs
from dvc_objects.fs.errors import AuthError, ConfigError, RemoteMissingDepsError

from lineage.store import check_there, dvc_errors
from tasks.object_store import needs_extra, one_line_errors
from tasks.stage import PawlineError
from tasks.store_urls import CREDENTIALS, scheme_of, without_secrets

EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure", "azure": "azure", "ssh": "ssh"}
OF_S3 = {"endpointurl": "--endpoint-url", "profile": "--profile", "region": "--region"}  # DVC's names, and ours
OWN = ("profile",)  # what is another one on another machine: it goes into .dvc/config.local, which git leaves out
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
TRIAL = {"s3": {"connect_timeout": 10, "read_timeout": 20}}  # seconds; DVC's own are a minute each, several times over
CONTENT = b"pawline tries whether it can write here\n"


@dataclass(frozen=True)
class Remote:
    """A remote as DVC knows it.

    Attributes:
        name: As DVC calls it.
        settings: Its section of DVC's configuration, `url` among them.
        is_default: Whether DVC takes it where none is named.
    """

    name: str
    settings: Mapping[str, Any]
    is_default: bool

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.settings["url"])

    @property
    def shown(self) -> str:
        """Where it is, without what only the remote should read: DVC takes passwords within URLs, too."""
        only_a_user = scheme_of(self.url) == "ssh" and urlsplit(self.url).password is None
        return self.url if only_a_user else without_secrets(self.url)

    @property
    def can_be_tried(self) -> bool:
        """Whether it is of a kind that `check_access` and `check_reachable` know; DVC has more."""
        scheme = scheme_of(self.url)
        return not scheme or scheme in EXTRAS


def find_remotes(root: Path) -> list[Remote]:
    """Return the configured remotes, the default one first."""
    config = _config(root)
    default = config["core"].get("remote")
    remotes = [Remote(name, dict(settings), name == default) for name, settings in config["remote"].items()]
    return sorted(remotes, key=lambda remote: not remote.is_default)


def find_remote(root: Path, name: str | None) -> Remote:
    """Return a remote by name, or the default one.

    Raises:
        PawlineError: It is not configured.
    """
    remotes = find_remotes(root)
    found = [remote for remote in remotes if (remote.is_default if name is None else remote.name == name.lower())]
    if not found:
        there = f"there are {', '.join(remote.name for remote in remotes)}" if remotes else "there is none"
        wanted = "default remote" if name is None else f"remote {name}"
        raise PawlineError(f"no {wanted} is configured; {there}: `pawline remote add URL`")
    return found[0]


def plan(url: str, name: str, options: Mapping[str, str | None], *, here: Path) -> Remote:
    """Return the remote that a URL and options describe.

    Args:
        url: `s3://`, `gs://`, `az://`, `ssh://`, or a folder.
        name: What it is to be called.
        options: DVC's options for S3 (the keys of `OF_S3`), as far as they were given.
        here: The folder that a relative one starts from.

    Raises:
        PawlineError: It is no URL of these, carries a password or another secret, or an option does not fit.
    """
    given = {key: value for key, value in options.items() if value}
    scheme = scheme_of(url)
    if scheme and scheme not in EXTRAS:
        raise PawlineError(f"{scheme}://: give s3://, gs://, az://, ssh:// or a folder; DVC has more: `dvc remote add`")
    if not NAME.fullmatch(name.lower()):
        raise PawlineError(f"--name {name!r}: take letters, digits, and - _ . between them")
    if given and scheme != "s3":
        raise PawlineError(f"{OF_S3[next(iter(given))]} is for s3:// only: leave it out")
    for address in (url, given.get("endpointurl", "")):
        _check_no_secret(address, scheme)
    if scheme == "az":
        url = f"azure{url[2:]}"  # as DVC calls it
    place = url if scheme else os.path.normpath(here / Path(url).expanduser())
    return Remote(name.lower(), {"url": place, **given}, is_default=True)


def add(root: Path, remote: Remote) -> None:
    """Write a remote into DVC's configuration as the default one; what is this machine's own goes into config.local.

    Raises:
        PawlineError: Another place has that name, or this machine's own configuration names another default.
    """
    check_free(root, remote)
    config = _config(root)
    own = {key: value for key, value in remote.settings.items() if key in OWN}
    with dvc_errors(), config.edit("repo") as shared:
        shared["remote"][remote.name] = {key: value for key, value in remote.settings.items() if key not in OWN}
        shared["core"]["remote"] = remote.name
    local = config.load_one("local")
    if own or remote.name in local["remote"] or "remote" in local["core"]:
        with dvc_errors(), config.edit("local") as local:
            local["remote"][remote.name] = own
            local["core"].pop("remote", None)


def check_free(root: Path, remote: Remote) -> None:
    """Make sure that no other place has the remote's name.

    Raises:
        PawlineError: One has.
    """
    for known in find_remotes(root):
        if known.name == remote.name and known.url != remote.url:
            raise PawlineError(
                f"the remote {remote.name} is {known.shown}: `dvc remote remove {remote.name}` first, or give --name"
            )


def check_access(remote: Remote, *, make_folder: bool = False) -> None:
    """Write a tiny object to a remote, read it back and remove it.

    Args:
        remote: The remote, configured or not.
        make_folder: Make the folder if it is not there (a bucket is never made).

    Raises:
        PawlineError: The library for it is missing, or it cannot be reached, written to, read, or deleted from.
    """
    if not remote.can_be_tried:
        raise PawlineError(f"{remote.shown} cannot be tried: `dvc push` says whether it works")
    with _opened(remote) as (fs, folder):
        if make_folder:
            fs.makedirs(folder, exist_ok=True)
        path = fs.join(folder, f".pawline-{uuid.uuid4().hex}")
        fs.pipe_file(path, CONTENT)
        try:
            content = fs.cat_file(path)
        finally:
            fs.remove(path)
    if content != CONTENT:
        raise PawlineError(f"{remote.shown} gives back other bytes than were written: choose another place")


def check_reachable(remote: Remote) -> None:
    """Ask whether a remote is there, and read or write nothing.

    Raises:
        PawlineError: The library for it is missing, or it cannot be reached or read.
    """
    with _opened(remote) as (fs, folder):
        check_there(fs, folder)


@contextmanager
def _opened(remote: Remote) -> Iterator[tuple[Any, str]]:
    """Yield DVC's file system for a remote and the path on it, and turn errors in the block into one line."""
    scheme = scheme_of(remote.url)
    if not scheme and os.path.lexists(remote.url) and not Path(remote.url).is_dir():
        kind = "a file" if Path(remote.url).exists() else "a link to nothing"
        raise PawlineError(f"{remote.shown} is {kind}: give a folder")
    with dvc_errors(), one_line_errors(remote.shown):
        try:
            kind, settings, folder = get_cloud_fs({}, **TRIAL.get(scheme, {}), **remote.settings)
            yield kind(**settings), folder
        except (ImportError, RemoteMissingDepsError) as error:
            raise PawlineError(needs_extra(remote.shown, EXTRAS.get(scheme, scheme))) from error
        except (AuthError, ConfigError) as error:
            raise PawlineError(
                f"{remote.shown} cannot be used ({without_secrets(str(error))}): {_credentials(scheme)}"
            ) from error


def _check_no_secret(url: str, scheme: str) -> None:
    parts = urlsplit(url if "://" in url else "")  # a folder may be called anything
    if parts.password or parts.query or ("@" in parts.netloc and scheme != "ssh"):
        raise PawlineError(f"the URL has credentials or a query in it: take them out, and {_credentials(scheme)}")


def _credentials(scheme: str) -> str:
    return CREDENTIALS.get(scheme, "use a key of ssh's agent")


def _config(root: Path) -> Config:
    folder = root / ".dvc"
    if not folder.is_dir():
        raise PawlineError(f"{root} is no DVC project: `dvc init`")
    with dvc_errors():
        return Config(str(folder))
