"""The processes that train one model together: which they are, and that all have the same before they begin.

They are those of the environment variable TF_CONFIG, in TensorFlow's own form; the first is the chief, who alone writes
what comes out. Before TensorFlow takes over its address the chief listens there itself, until every other worker has
called and said what it has. Whoever is missing or differs is then named in one line, by every worker.
"""

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tasks import stage
from tasks.code import digest_package
from tasks.environment import describe_environment
from tasks.stage import PawlineError, TemporaryError

log = logging.getLogger(__name__)

TF_CONFIG = "TF_CONFIG"
WAIT_SECONDS = 120.0  # for each other; TensorFlow takes seconds to start
ANSWER_SECONDS = 10.0  # for a line that has to come at once
RETRY_SECONDS = 0.3
LONGEST_LINE = 1 << 20
SHOWN = 12  # digits of a digest

WATCHDOG = """
import os, select, signal, sys
if not select.select([0], [], [], float(sys.argv[1]))[0]:
    sys.stderr.write(sys.argv[2])
    os.kill(os.getppid(), signal.SIGKILL)
"""

Facts = Mapping[str, str]


class Cluster(NamedTuple):
    """The workers of TF_CONFIG.

    Attributes:
        addresses: `host:port` of each, the chief first.
        number: Which of them this process is, from 0.
    """

    addresses: tuple[str, ...]
    number: int

    def address(self, index: int) -> tuple[str, int]:
        """Return host and port of a worker."""
        host, _, port = self.addresses[index].rpartition(":")
        return host, int(port)

    def name(self, index: int) -> str:
        """Return what a worker is called in messages."""
        return f"worker {index} ({self.addresses[index]})" if index else f"the chief ({self.addresses[0]})"


def read_cluster() -> Cluster | None:
    """Return the workers that TF_CONFIG lists; None where it is not set or lists one alone.

    Raises:
        PawlineError: It cannot be made sense of.
    """
    text = os.environ.get(TF_CONFIG, "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        addresses = tuple(address for job in ("chief", "worker") for address in jobs.get(job, []))
        index = int(task["index"]) + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
        ports = [int(address.rpartition(":")[2]) for address in addresses]
    except (ValueError, KeyError, TypeError, AttributeError):
        ports, index = [], 0
    if not 0 <= index < len(ports) or not set(jobs) <= {"chief", "worker"} or task["type"] not in jobs:
        raise PawlineError(
            f"{TF_CONFIG} is {text[:200]!r}: it must be JSON such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
        )
    return Cluster(addresses, index) if len(addresses) > 1 else None


def is_chief() -> bool:
    """Say whether this process writes what comes out: it is the chief, or alone."""
    cluster = read_cluster()
    return cluster is None or cluster.number == 0


@contextmanager
def scratch_dir(stage_name: str, facts: object, *folders: Path) -> Iterator[Path | None]:
    """Yield where the chief keeps the state of its training (`stage.scratch_dir`); None for the others.

    Args:
        stage_name: The stage.
        facts: Its parameters.
        folders: What it reads.
    """
    if not is_chief():
        yield None
        return
    key = stage.digest_inputs([facts, describe_environment()], *folders)  # another TensorFlow has other last digits
    with stage.scratch_dir(stage_name, key) as scratch:
        yield scratch


def describe(params: Mapping[str, Any], devices: int, *folders: Path) -> Facts:
    """Return what must be the same everywhere, each fact under the name that messages call it by.

    Args:
        params: The stage's, by their names.
        devices: GPUs of this process.
        folders: What the stage reads: by names and sizes, and whole where it is JSON.
    """
    environment = describe_environment()
    facts: dict[str, str] = {"Python": environment["python"]} | environment["packages"] | {"GPUs": str(devices)}
    facts |= {name: json.dumps(value) for name, value in params.items()}
    inputs = sorted(path for folder in folders for path in folder.iterdir())
    read = [path.read_bytes() if path.suffix == ".json" else str(path.stat().st_size).encode() for path in inputs]
    facts["inputs"] = _digest([(path.name, content) for path, content in zip(inputs, read, strict=True)])
    facts["code"] = digest_package("tasks")[:SHOWN]
    return facts


def _digest(parts: list[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:SHOWN]


def meet(cluster: Cluster, stage_name: str, facts: Facts) -> None:
    """Return when all workers are there and have the same.

    Raises:
        TemporaryError: A worker did not come in time, or the chief did not.
        PawlineError: A worker differs from the chief: all that are there raise it.
    """
    if cluster.number == 0:
        _receive(cluster, stage_name, facts)
    else:
        _call(cluster, stage_name, facts)


@contextmanager
def ended_after(seconds: float, message: str) -> Iterator[None]:
    """End this process with a line if the block takes longer.

    By another process, because TensorFlow waits with Python's lock in its hand, where no thread and no signal gets in.
    """
    command = [sys.executable, "-I", "-S", "-c", WATCHDOG, str(seconds), f"error: {message}\n"]
    with subprocess.Popen(command, stdin=subprocess.PIPE):  # noqa: S603 - our own code; its input ends with the block
        yield


def _receive(cluster: Cluster, stage_name: str, facts: Facts) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    log.info("%s: waiting for %d other workers", stage_name, len(cluster.addresses) - 1)
    callers: dict[int, socket.socket] = {}
    error: PawlineError | None = None
    with _listen(cluster) as server:
        try:
            while error is None and len(callers) < len(cluster.addresses) - 1:
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                connection = server.accept()[0]
                error = _hear(connection, cluster, stage_name, facts, callers)
        except TimeoutError:
            missing = [cluster.name(index) for index in range(1, len(cluster.addresses)) if index not in callers]
            error = TemporaryError(
                f"{', '.join(missing)} did not come within {WAIT_SECONDS:.0f} s: start `python -m "
                f"tasks.training_worker` there, with its own {TF_CONFIG}, and run again"
            )
    for connection in callers.values():
        _say(connection, {"error": str(error or ""), "again": isinstance(error, TemporaryError)})
    if error:
        raise error


def _listen(cluster: Cluster) -> socket.socket:
    """Listen for this worker, on every address of the machine as TensorFlow does: TF_CONFIG's may be a proxy's."""
    host, port = cluster.address(cluster.number)
    try:
        return socket.create_server(("127.0.0.1" if host in ("127.0.0.1", "localhost") else "", port))
    except OSError as error:
        who = cluster.name(cluster.number)
        raise PawlineError(
            f"{who} cannot listen at its port ({error.strerror}): free it, or give {TF_CONFIG} another"
        ) from None


def _hear(
    connection: socket.socket, cluster: Cluster, stage_name: str, facts: Facts, callers: dict[int, socket.socket]
) -> PawlineError | None:
    """Hear one caller out, keep its connection if it is one of the others; return what is wrong with it."""
    said = _listen_to(connection, ANSWER_SECONDS)
    if said == {"ask": "stage"}:
        _say(connection, {"stage": stage_name, "folder": str(Path.cwd())})
        return None
    index, theirs = said.get("worker"), said.get("facts")
    if not isinstance(index, int) or index not in range(1, len(cluster.addresses)) or not isinstance(theirs, dict):
        connection.close()  # whatever it is, it is not one of ours
        return None
    callers[index] = connection
    if said["stage"] != stage_name:
        return PawlineError(f"{cluster.name(index)} runs {said['stage']}, and the chief runs {stage_name}")
    for name in [*facts, *theirs]:
        if theirs.get(name) != facts.get(name):
            has = f"{name} {theirs.get(name, 'missing')}, and the chief has {facts.get(name, 'none')}"
            return PawlineError(
                f"{cluster.name(index)} has {has}: all need the same folder, code, libraries and parameters"
            )
    return None


def _call(cluster: Cluster, stage_name: str, facts: Facts) -> None:
    _listen(cluster).close()  # TensorFlow will, and says less when it cannot
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        answer = ask_chief(
            cluster,
            {"worker": cluster.number, "stage": stage_name, "facts": dict(facts)},
            WAIT_SECONDS + ANSWER_SECONDS,
        )
        if "error" in answer:
            if answer["error"]:
                raise (TemporaryError if answer.get("again") else PawlineError)(answer["error"])
            return
        time.sleep(RETRY_SECONDS)
    raise TemporaryError(
        f"{cluster.name(0)} did not answer within {WAIT_SECONDS:.0f} s: start `dvc repro` there, with its {TF_CONFIG}"
    )


def ask_chief(cluster: Cluster, question: dict[str, Any], patience: float) -> dict[str, Any]:
    """Return what the chief answers within so many seconds; nothing if it does not listen, or is at work already."""
    try:
        connection = socket.create_connection(cluster.address(0), timeout=ANSWER_SECONDS)
    except OSError:
        return {}
    _say(connection, question, close=False)
    answer = _listen_to(connection, patience)
    connection.close()
    return answer


def _say(connection: socket.socket, message: dict[str, Any], *, close: bool = True) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        log.debug("a worker hung up")
    if close:
        connection.close()


def _listen_to(connection: socket.socket, patience: float) -> dict[str, Any]:
    """Return the JSON object that a line of the other side holds; nothing if none comes."""
    connection.settimeout(patience)
    try:
        with connection.makefile("rb") as lines:
            message = json.loads(lines.readline(LONGEST_LINE))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}
