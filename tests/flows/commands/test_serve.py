import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.inference.running import make_export, picture

PAWLINE = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--port", "0"]


@pytest.fixture
def export_dir(tmp_path: Path) -> Path:
    return make_export(tmp_path / "colours")


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command until the block ends, and yield its process and its first line."""
    process = subprocess.Popen(
        [*PAWLINE, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def address_in(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    return found[0]


def test_it_says_where_it_is_and_ends_in_good_order(export_dir: Path) -> None:
    with serving(export_dir.parent, "--model", "colours", "--unsure-below", "0.9") as (process, line):
        described = "colours (red, green, blue; openvino, float32)"
        assert line == f"{described} is served at {address_in(line)} (Ctrl-C ends it)\n"
        with httpx.Client(base_url=address_in(line), timeout=20) as http:
            told = http.post("/predict", content=picture("red")).json()
            assert (told["model"]["name"], told["answers"][0]["label"]) == ("colours", "red")
            assert http.post("/predict", content=picture("#801070")).json()["answers"][0]["label"] == "unsure"
        loaded = Path(f"/proc/{process.pid}/maps").read_text() if sys.platform == "linux" else ""
        assert "/site-packages/tensorflow/" not in loaded
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("ended: 2 requests answered\n", "")
        assert process.returncode == 0


def test_others_are_let_in_with_a_warning_and_ctrl_c_answers_what_is_under_way(export_dir: Path) -> None:
    with serving(export_dir, "--model", ".", "--max-mb", "0.05", "--host", "0.0.0.0") as (process, line):  # noqa: S104
        address = httpx.URL(address_in(line))
        photo = picture("red", "BMP", (100, 100))
        assert address.port is not None
        with socket.create_connection((address.host, address.port), 20) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: pets.example\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
            connection.sendall(head + photo[:100])
            assert httpx.post(f"{address}/predict", content=bytes(50_001)).status_code == 413
            process.send_signal(signal.SIGINT)
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.sendall(photo[100:])
            connection.settimeout(20)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        warning = "warning: whoever can reach 0.0.0.0 can send photos here: there is no password\n"
        assert process.communicate(timeout=20) == ("ended: 2 requests answered\n", warning)
        assert process.returncode == 0


def test_a_port_in_use_is_one_line(export_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [*PAWLINE, "--model", ".", "--port", port], cwd=export_dir, capture_output=True, text=True, timeout=60
        )
    assert done.stderr == (
        f"error: --host 127.0.0.1 --port {port}: something listens there already; choose another port\n"
    )
    assert done.returncode == 1
