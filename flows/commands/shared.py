"""What the commands share: finding the project, its log on the terminal, and what Ctrl-C says."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from tasks.stage import PawlineError

ENDED = 143  # exit code of what SIGTERM ended


def enter_project() -> Path:
    """Go to the nearest folder, from the current one upwards, that holds a dvc.yaml; return where the user stood."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            _log_to_terminal()
            return here
    raise PawlineError(f"no dvc.yaml in {here} or above it: change to a checkout of Pawline first")


@contextmanager
def interruptible(what_now: str) -> Iterator[None]:
    """Say on Ctrl-C, and when a signal ends the command, what there is now; exit with 130 or 143."""
    try:
        yield
    except SystemExit as ended:
        if ended.code == ENDED:
            sys.stderr.write(f"ended: {what_now}\n")
        raise
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: {what_now}\n")
        raise typer.Exit(130) from None


@contextmanager
def connected_to_prefect() -> Iterator[None]:
    """Let flows that are called in the block be recorded by Prefect, its own words kept off the terminal.

    Raises:
        PawlineError: The server cannot be reached or started.
    """
    from flows import server

    server.prepare()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    logging.getLogger(__name__).info("starting Prefect")
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    server.connect()
    import httpx

    # Nobody waits for heartbeats, and a flow that has them takes up to a second to end.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            yield
        except httpx.TransportError as error:
            raise PawlineError(
                f"Prefect's server is gone in the middle of the run ({error}): what was finished is kept; run it again"
            ) from error


class Terminal(logging.Handler):
    """Prints records on what is the standard output by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        typer.echo(self.format(record))


def _log_to_terminal() -> None:
    """Show what the flow logs, each line after the name of its stage."""
    handler = Terminal()
    handler.setFormatter(logging.Formatter("%(stage)-10s | %(message)s", defaults={"stage": "pawline"}))
    for package in ("flows", "registry"):
        logger = logging.getLogger(package)
        logger.propagate = False
        # Prefect's own, if it is there already, takes the lines to its server.
        logger.handlers = [other for other in logger.handlers if not isinstance(other, Terminal)] + [handler]
