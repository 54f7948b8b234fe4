"""Real workers of a training: each a process of its own, on loopback and free ports."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conftest import ROOT

PATIENCE_SECONDS = 90.0


def free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


def tf_config(addresses: list[str], index: int) -> str:
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


class Worker:
    """A process, and what it says."""

    def __init__(self, command: list[str], folder: Path, *, addresses: list[str], index: int) -> None:
        log = folder / f"{time.monotonic_ns()}-{index}.log"
        self._log = log
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        environment["TF_CONFIG"] = tf_config(addresses, index)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said:
            assert self.process.poll() is None or text in self.said, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def end(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def working(commands: list[list[str]], folder: Path) -> Iterator[list[Worker]]:
    """Start a worker for each command, the chief first; kill what is left of them at the end."""
    addresses = free_addresses(len(commands))
    workers = [Worker(command, folder, addresses=addresses, index=index) for index, command in enumerate(commands)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait(PATIENCE_SECONDS)
