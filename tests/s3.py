"""A real S3 API on loopback: moto's server in a process of its own, and buckets to put things into."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import requests

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_DEFAULT_REGION": "us-east-1"}
SECONDS_TO_START = 60.0


class Bucket(NamedTuple):
    """A bucket, spoken to without any of the code under test."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def request(self, method: str, path: str = "", content: bytes | str = b"") -> bytes:
        """Send a request to moto, which asks for no signature."""
        # With curl's type, or none, moto takes the content for a form.
        headers = {"Authorization": f"AWS {KEYS['AWS_ACCESS_KEY_ID']}:x", "Content-Type": "application/octet-stream"}
        answer = requests.request(
            method, f"{self.endpoint}/{self.name}{path}", data=content, headers=headers, timeout=30
        )
        answer.raise_for_status()
        return answer.content

    def put(self, key: str, content: bytes) -> None:
        self.request("PUT", f"/{quote(key)}", content)

    def put_folder(self, folder: Path, prefix: str = "") -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())

    def deny(self, *actions: str) -> None:
        """Refuse actions such as `s3:PutObject` on every object."""
        statement = {"Effect": "Deny", "Principal": "*", "Action": list(actions)}
        statement["Resource"] = f"arn:aws:s3:::{self.name}/*"
        self.request("PUT", "?policy", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    def allow(self) -> None:
        """Refuse nothing."""
        self.request("DELETE", "?policy")

    def objects(self) -> int:
        """How many objects there are."""
        return self.request("GET", "?list-type=2").count(b"<Key>")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(log: Path) -> Iterator[str]:
    """Yield the address of a server of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            _wait(server, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text(encoding="utf-8"))
