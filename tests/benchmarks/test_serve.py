import asyncio
import time
from collections import Counter
from pathlib import Path

from benchmarks.serve import Result, attacking, describe, load
from tests.inference.running import make_export, picture, running


def test_a_small_load_is_answered_while_others_are_refused(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    with running(make_export(tmp_path)) as service:
        with attacking(service.address, seen):
            result = asyncio.run(load(service.address, [picture("red")], seconds=1, rate=20, clients=4))
            until = time.monotonic() + 20
            while not all(
                service.metric("pawline_refused_total", reason=why) for why in ("too_large", "body_too_large")
            ):
                assert time.monotonic() < until
        assert (result.outcomes, result.errors) == ({"200": 20}, 0)
        assert service.metric("pawline_images_total", answer="red") == 20
    assert set(seen) <= {
        "50 MB body: 413",
        "50 MB body, length not said: 413",
        "giant PNG: 422",
        "1 byte a second: 408",
    }


def test_a_latency_counts_from_when_a_request_was_due() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"--\r\n"):
            await asyncio.sleep(0.1)
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    async def measure() -> Result:
        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        result = await load(f"http://127.0.0.1:{port}", [b"photo"], seconds=0.5, rate=20, clients=1)
        server.close()
        return result

    result = asyncio.run(measure())
    assert max(result.latencies) > 0.2, "one client, twice the rate it can serve: the last was due long before"
    assert result.errors == sum(result.outcomes.values())
    assert "503: " in describe(result)
