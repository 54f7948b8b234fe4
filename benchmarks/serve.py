"""`pawline serve` under load: real photos by many clients at a steady rate, while hostile clients do their worst.

    pawline serve                                     in another terminal
    python -m benchmarks.serve                        32 clients, 60 requests a second in total, a minute
    python -m benchmarks.serve --hostile              and bodies of 50 MB, a giant PNG, slow writers at the same time
    python -m benchmarks.serve --rate 0               as fast as the clients can

The photos are those of `data/raw` that validation kept. Arrivals do not wait for answers (open loop): a latency is
counted from the moment when its request was due, so that a service that falls behind shows. The load takes its share
of the processors.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import select
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from PIL import Image

from tasks.image_table import read_images
from tasks.raw import list_chunks, read_chunk
from tasks.stage import PawlineError

PHOTOS = 500
GIANT_SIDE_PX = 20_000
HUGE_BYTES = 50_000_000
CHUNK = bytes(65_536)
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
PAUSE_SECONDS = 1.0
SLOW_WRITERS = 8
TIMEOUT_SECONDS = 60.0


@dataclass
class Result:
    """What came of a load: seconds of each answer, and how many requests ended how."""

    latencies: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def errors(self) -> int:
        """How many requests with a photo were not answered."""
        return sum(self.outcomes.values()) - self.outcomes["200"]


def read_photos(project: Path, most: int = PHOTOS) -> list[bytes]:
    """Return photos of a finished run, as they came in."""
    try:
        kept = {row.path for row in read_images(project / "data/images.parquet") if not row.reason}
    except FileNotFoundError:
        raise PawlineError(f"{project} has no data/images.parquet: `pawline run` first") from None
    records = (record for chunk in list_chunks(project / "data/raw") for record in read_chunk(chunk))
    return list(islice((record.content for record in records if record.path in kept), most))


async def load(address: str, photos: list[bytes], *, seconds: float, rate: float, clients: int) -> Result:
    """Send photos for some seconds.

    Args:
        address: Of the service, such as `http://127.0.0.1:8000`.
        photos: Sent in turn.
        seconds: How long.
        rate: Requests a second of all clients together; 0 is as many as they can.
        clients: How many, each with a connection and one request at a time.
    """
    result = Result()
    due = count() if rate else None
    began = time.perf_counter()

    async def client(http: httpx.AsyncClient, own: int) -> None:
        for number in count(own, clients):
            at = began + (next(due) / rate if due else 0)
            if max(at, time.perf_counter()) - began >= seconds:
                return
            await asyncio.sleep(at - time.perf_counter())
            at = at if rate else time.perf_counter()
            result.outcomes[await send(http, photos[number % len(photos)])] += 1
            result.latencies.append(time.perf_counter() - at)

    async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT_SECONDS, limits=httpx.Limits()) as http:
        await asyncio.gather(*(client(http, own) for own in range(clients)))
    result.seconds = time.perf_counter() - began
    return result


async def send(http: httpx.AsyncClient, photo: bytes) -> str:
    """Send a photo in a form, as browsers and curl do; return the status, or what went wrong."""
    try:
        return str((await http.post("/predict", files={"file": ("photo.jpg", photo, "image/jpeg")})).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def giant_png() -> bytes:
    """Return a whole PNG of 20,000 x 20,000 black pixels: small in bytes, 400 MB when it is decoded to gray."""
    content = io.BytesIO()
    Image.new("1", (GIANT_SIDE_PX, GIANT_SIDE_PX)).save(content, "PNG")
    return content.getvalue()


@contextmanager
def attacking(address: str, seen: Counter[str]) -> Iterator[None]:
    """Send what must be refused, over and over, from a process of its own; count the answers."""
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = spawn.Queue()
    attacker = spawn.Process(target=attack, args=(urlsplit(address).hostname, urlsplit(address).port, answers))
    attacker.start()
    try:
        yield
    finally:
        attacker.terminate()
        attacker.join()
        while not answers.empty():
            seen[answers.get()] += 1


def attack(host: str, port: int, answers: "multiprocessing.Queue[str]") -> None:
    """Attack from several threads at once, until this process is ended."""
    giant = giant_png()
    attacks: dict[str, Callable[[socket.socket], None]] = {
        "50 MB body": lambda to: _send_huge(to, b"Content-Length: %d\r\n\r\n" % HUGE_BYTES, b"", b""),
        "50 MB body, length not said": lambda to: _send_huge(
            to, b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n", b"\r\n"
        ),
        "giant PNG": lambda to: to.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(giant) + giant),
    } | {f"1 byte a second ({number})": _send_slowly for number in range(SLOW_WRITERS)}

    def repeat(name: str, send_request: Callable[[socket.socket], None]) -> None:
        while True:
            with socket.create_connection((host, port), TIMEOUT_SECONDS) as to:
                try:
                    send_request(to)
                    answer = to.recv(65_536).split()[1].decode()
                except (OSError, IndexError) as error:
                    answer = type(error).__name__
            answers.put(f"{name.partition(' (')[0]}: {answer}")
            time.sleep(PAUSE_SECONDS)

    for name, send_request in attacks.items():
        threading.Thread(target=repeat, args=(name, send_request)).start()


def _send_huge(to: socket.socket, how: bytes, before: bytes, after: bytes) -> None:
    to.sendall(HEAD + how)
    for _ in range(HUGE_BYTES // len(CHUNK)):
        to.sendall(before + CHUNK + after)


def _send_slowly(to: socket.socket) -> None:
    to.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    while not select.select([to], [], [], 1.0)[0]:
        to.sendall(b"x")


def describe(result: Result) -> str:
    """Return the figures, with the load of the machine, which others may share."""
    percentiles = statistics.quantiles(result.latencies, n=100)
    shown = ", ".join(f"p{n} {1000 * percentiles[n - 1]:.0f} ms" for n in (50, 95, 99))
    lines = [
        f"{sum(result.outcomes.values())} requests in {result.seconds:.1f} s "
        f"({result.outcomes['200'] / result.seconds:.1f} answered a second), {result.errors} errors, {shown}, "
        f"longest {1000 * max(result.latencies):.0f} ms; load average {os.getloadavg()[0]:.1f}"
    ]
    lines += [f"  {outcome}: {times}" for outcome, times in result.outcomes.items() if outcome != "200"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--project", type=Path, default=Path(), help="whose photos are sent (default: this folder)")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=60, help="requests a second in total; 0: as many as possible")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--hostile", action="store_true", help="hostile clients at the same time")
    args = parser.parse_args(argv)
    try:
        photos = read_photos(args.project)
    except PawlineError as error:
        parser.error(str(error))
    hostile: Counter[str] = Counter()
    with attacking(args.address, hostile) if args.hostile else nullcontext():
        result = asyncio.run(load(args.address, photos, seconds=args.seconds, rate=args.rate, clients=args.clients))
    print(describe(result))
    for name, times in sorted(hostile.items()):
        print(f"  {name}: {times} times")


if __name__ == "__main__":
    main()
