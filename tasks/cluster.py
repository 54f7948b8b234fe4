"""Map a function over chunks of work, on this machine's processes or on a Dask cluster: results in order.

The cluster is the user's own: `DASK_SCHEDULER_ADDRESS` names its scheduler. Its workers see the project's folder under
the same path (chunks are paths, not bytes) and have the same Pawline and the same libraries: each is asked before any
work is sent. A chunk whose worker is lost is done again by another; one that takes several workers with it (Dask's
`distributed.scheduler.allowed-failures`, 3 unless the scheduler is told otherwise) is done here in another way, or is
an error with its name.
"""

import functools
import importlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tasks.code import digest_package
from tasks.environment import PACKAGES, version_of
from tasks.parallel import map_processes
from tasks.stage import PawlineError, TemporaryError

if TYPE_CHECKING:  # half a second to import, and most runs have no cluster
    from distributed import Client, Future, Worker

T = TypeVar("T")
R = TypeVar("R")

SCHEDULER = "DASK_SCHEDULER_ADDRESS"
CONNECT_SECONDS = 10
CHUNKS_A_THREAD = 2  # under way: one being done, one waiting
PATIENCE_SECONDS = 900.0  # for a chunk that can be done here: thousands of times as long as one takes
LIBRARIES = ("dask", "distributed", *PACKAGES)


class Side(NamedTuple):
    """What must be the same here and on a worker."""

    code: str  # SHA-256 of Pawline's modules that stages use
    python: str
    versions: dict[str, str | None]
    sees_folder: bool


def scheduler_address() -> str | None:
    """Return the address of the scheduler that stages send their chunks to; None is local processes."""
    return os.environ.get(SCHEDULER) or None


def map_chunks(function: Callable[[T], R], chunks: Iterable[T], rescue: Callable[[T], R] | None = None) -> Iterator[R]:
    """Yield `function(chunk)` for each chunk, in order, from the cluster if one is named, or from local processes.

    Args:
        function: As for `map_cluster` and `map_processes`.
        chunks: As for both.
        rescue: As for both.

    Raises:
        PawlineError: As both do.
    """
    address = scheduler_address()
    if address is None:
        return map_processes(function, chunks, rescue=rescue)
    return map_cluster(function, chunks, address, rescue)


def map_cluster(
    function: Callable[[T], R], chunks: Iterable[T], address: str, rescue: Callable[[T], R] | None = None
) -> Iterator[R]:
    """Yield `function(chunk)` for each chunk, in order.

    Args:
        function: A module-level function, or a `functools.partial` of one, with absolute paths in it.
        chunks: Small descriptions of work with absolute paths. Their `str` names them when they kill their workers.
        address: The scheduler's, such as `tcp://10.0.0.5:8786`.
        rescue: Does a chunk here, in another way, that killed its workers, ran out of memory or never ended.

    Raises:
        TemporaryError: There is no scheduler at the address, or it has no workers.
        PawlineError: A worker differs from this side, or a chunk was lost with several workers.
        Exception: Whatever `function` raises.
    """
    function = _importable(function)
    with _connect(address) as client:
        threads = _check_workers(client, address)
        waiting: Iterator[T] = iter(chunks)
        pending: deque[tuple[T, Future]] = deque()
        while True:
            for chunk in islice(waiting, CHUNKS_A_THREAD * threads - len(pending)):
                pending.append((chunk, client.submit(function, chunk, pure=False)))
            if not pending:
                return
            yield _result(*pending[0], rescue)
            pending.popleft()


def _result(chunk: T, future: "Future", rescue: Callable[[T], R] | None) -> R:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        result: R = future.result(PATIENCE_SECONDS if rescue else None)
    except (KilledWorker, MemoryError, TimeoutError) as error:
        future.cancel()
        if rescue:
            return rescue(chunk)
        if not isinstance(error, KilledWorker):
            raise
        raise PawlineError(
            f"{error.allowed_failures + 1} workers died one after the other while they worked on {chunk}: if memory "
            "ran out, give them more and run again, otherwise a file in there crashes its decoder"
        ) from None
    except CancelledError:
        raise TemporaryError(f"the cluster forgot {chunk}: its scheduler has ended; run again") from None
    return result


@contextmanager
def _connect(address: str) -> Iterator["Client"]:
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")  # read when it is imported
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".") or type(error).__name__
        raise TemporaryError(
            f"no Dask scheduler at {address} ({why}): start it, or unset {SCHEDULER} to work on this machine"
        ) from None
    try:
        yield client
    finally:
        client.close(timeout=1)


def _check_workers(client: "Client", address: str) -> int:
    """Compare every worker with this side; return how many threads they have together."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise TemporaryError(f"the Dask scheduler at {address} has no workers: start some (`dask worker {address}`)")
    here = describe_side(str(Path.cwd()))
    answers = client.run(describe_side, str(Path.cwd()), on_error="return")
    for worker, there in sorted(answers.items()):
        difference = _difference(here, there)
        if difference:
            raise PawlineError(f"the Dask worker at {worker} {difference}")
    client.run(stop_profiler)
    return sum(worker["nthreads"] for worker in workers.values())


def stop_profiler(dask_worker: "Worker") -> None:
    """Stop the profiler of the worker that this runs in.

    It looks at all threads a hundred times a second, and in Python 3.11.7 the garbage collector, if it runs just then,
    can wait for a lock that the look itself holds (seen in `features`: the worker stood still for ever).
    """
    for name in ("profile", "profile-cycle"):
        callback = dask_worker.periodic_callbacks.get(name)  # none where the configuration has it off
        if callback is not None:
            callback.stop()


def _difference(here: Side, there: Side | BaseException) -> str:
    if isinstance(there, ModuleNotFoundError):
        return f"has no module {there.name}: install this version of Pawline there, from its lock file"
    if isinstance(there, BaseException):
        return f"could not say what it has: {type(there).__name__}: {there}"
    if not there.sees_folder:
        return f"does not see {Path.cwd()}: share the project's folder under the same path"
    if there.python != here.python:
        return f"runs Python {there.python}, and here is {here.python}: use the same there"
    for name, version in here.versions.items():
        if there.versions[name] != version:
            has = there.versions[name] or "none"
            return f"has {name} {has}, and here is {version}: install the same lock file there"
    if there.code != here.code:
        return "has another version of Pawline's code: install the same there, and restart it"
    return ""


def describe_side(folder: str) -> Side:
    """Describe the process that this runs in; `folder` is the project's."""
    return Side(_code_digest(), sys.version.split()[0], {name: version_of(name) for name in LIBRARIES}, _sees(folder))


def _sees(folder: str) -> bool:
    return Path(folder).is_dir()


@functools.cache
def _code_digest() -> str:
    """Read once: a worker goes on with the code that it has loaded."""
    return digest_package("tasks")


def _importable(function: Callable[[T], R]) -> Callable[[T], R]:
    """Return a stage's function by its module's name: run by `python -m`, that module is `__main__` here only."""
    if isinstance(function, functools.partial):
        return functools.partial(_importable(function.func), *function.args, **function.keywords)
    spec = sys.modules[function.__module__].__spec__
    if function.__module__ != "__main__" or spec is None:
        return function
    found: Callable[[T], R] = getattr(importlib.import_module(spec.name), function.__name__)
    return found
