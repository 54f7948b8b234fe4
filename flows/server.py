"""The Prefect server that a run is recorded on: the one that PREFECT_API_URL names, or a temporary one on loopback."""

import signal

from prefect.client.orchestration import get_client

from tasks.stage import PawlineError


def connect() -> None:
    """Make sure that there is a server, starting the temporary one if none is named.

    A temporary server belongs to this process and ends with it. It is started with the interrupt signal blocked, which
    it inherits: Ctrl-C on a terminal goes to the whole process group, and without its server the run would wait a
    minute to report that it was interrupted.

    Raises:
        PawlineError: The server cannot be reached or started.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise PawlineError(f"Prefect's temporary server did not start: {' '.join(str(error).split())}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    problem = client.api_healthcheck()
    if problem is not None:
        raise PawlineError(f"no Prefect server at {client.api_url} ({problem}): start it, or unset PREFECT_API_URL")
