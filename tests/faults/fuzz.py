"""Damages images and looks at what becomes of each, in processes of its own, so that a crash is seen and named.

    python -m tests.faults.fuzz --files 50000 --seed 1     what was found; files that failed are written to --out

A damaged file is made from a seed and its number alone: `--only NUMBER` makes and judges that one again. Each is judged
twice; one that is kept goes on through the decoding and resizing of `preprocess`, twice, and TensorFlow reads what
comes out, from a TFRecord as `preprocess` writes it.
"""

import argparse
import hashlib
import logging
import multiprocessing
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from tasks import records
from tasks.images import Verdict, decode_upright, judge, resize_square
from tasks.limits import quiet_decoders
from tasks.parallel import available_processors
from tasks.params import ImageParams, check_params
from tasks.preprocess import encode_png
from tasks.raw import RawRecord, write_shards
from tasks.validate import judge_files, list_candidates
from tests.conftest import ROOT
from tests.faults import fuzz_seeds
from tests.faults.mutations import mutate

log = logging.getLogger(__name__)

JUDGING = check_params(ROOT / "params.yaml").validate_.model_dump(
    include={"min_side_px", "max_pixels", "blank_max_stddev"}
)
IMAGE = ImageParams(size_px=96, resize="squash")
SLOW_SECONDS, LARGE_BYTES = 5.0, 2**30
FUSE_BYTES = 3 * LARGE_BYTES  # what a process may take at most, so that the machine survives
PATIENCE_SECONDS = 120.0  # of a process that does nothing at all

DIED = "died"

Seeds = Sequence[bytes]


class Answer(NamedTuple):
    """What became of one damaged file."""

    number: int
    reason: str  # empty when kept
    seconds: float  # of a processor's time, of the slowest of its steps
    memory: int  # bytes by which the process grew, at most
    wrong: str = ""  # what must not be
    evidence: str = ""
    format: str = ""
    png: bytes = b""
    pixels: str = ""  # SHA-256 of what the PNG must hold


NOTHING = Answer(0, "", 0, 0)


@dataclass
class Found:
    """What became of all."""

    reasons: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)  # of those that were kept
    heavy: dict[int, str] = field(default_factory=dict)  # ended their process, or took too much
    failed: dict[int, str] = field(default_factory=dict)
    slowest: Answer = NOTHING
    largest: Answer = NOTHING
    read: int = 0  # by TensorFlow

    def __str__(self) -> str:
        kept = self.reasons[""]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.reasons.items()) if reason)
        took = f"slowest {self.slowest.seconds:.2f} s (number {self.slowest.number}), "
        took += f"largest {self.largest.memory >> 20} MiB (number {self.largest.number})"
        return (
            f"{self.reasons.total():,} files: {kept:,} kept, of which TensorFlow read {self.read:,}; {reasons}; "
            f"{took}; {len(self.heavy)} for `validate` to contain; {len(self.failed)} failed"
        )


def make_file(seeds: Seeds, seed: int, number: int) -> bytes:
    """Return the damaged file of a number."""
    chance = random.Random(f"{seed} {number}")  # noqa: S311 - reproducible, not secret
    return mutate(chance.choice(seeds), chance.choice(seeds), chance)


def fuzz(seeds: Seeds, *, files: int, seed: int, shards_dir: Path, workers: int | None = None) -> Found:
    """Damage and judge so many files; `shards_dir` takes the TFRecords of those that are kept."""
    found, kept = Found(), 0
    with ExitStack() as stack:
        writers: dict[int, records.Writer] = {}
        for answer in _answers(seeds, seed, files, workers or available_processors()):
            _count(found, answer)
            if answer.png:
                shard = kept // 1000
                if shard not in writers:
                    writers[shard] = records.Writer(shards_dir / f"{shard:05d}.tfrecord")
                    stack.callback(writers[shard].close)
                writers[shard].write(records.serialize(answer.png, 0, answer.pixels, str(answer.number)))
                kept += 1
            if found.reasons.total() % 2000 == 0:
                log.info("%s", found)
    return found


def _count(found: Found, answer: Answer) -> None:
    found.reasons[answer.reason] += 1
    found.slowest = max(found.slowest, answer, key=lambda one: one.seconds)
    found.largest = max(found.largest, answer, key=lambda one: one.memory)
    found.formats[answer.format] += not answer.reason
    if answer.wrong:
        found.failed[answer.number] = answer.wrong
    elif answer.reason == DIED:
        found.heavy[answer.number] = answer.evidence
    elif answer.seconds > SLOW_SECONDS or answer.memory > LARGE_BYTES:
        found.heavy[answer.number] = f"took {answer.seconds:.1f} s and {answer.memory >> 20} MiB"


def _answers(seeds: Seeds, seed: int, files: int, workers: int) -> Iterator[Answer]:
    """Yield what became of each file, as it becomes known; a process that dies over one is named and replaced."""
    at_work = {}
    for worker in range(workers):
        started = _Worker(seeds, seed, range(worker, files, workers))
        at_work[started.answers] = started
    try:
        while at_work:
            ready = wait(list(at_work), PATIENCE_SECONDS)
            for connection in [one for one in at_work if one in ready] or list(at_work):
                worker_ = at_work.pop(connection)
                answer, again = worker_.receive()
                if answer:
                    yield answer
                if again:
                    at_work[again.answers] = again
    finally:
        for one in at_work.values():
            one.process.kill()


class _Worker:
    """A process that judges files of given numbers."""

    def __init__(self, seeds: Seeds, seed: int, numbers: range) -> None:
        context = multiprocessing.get_context("spawn")
        self.answers, sender = context.Pipe(duplex=False)
        self._seeds, self._seed, self._numbers = seeds, seed, numbers
        self.process = context.Process(target=_judge_all, args=(sender, seeds, seed, numbers), daemon=True)
        self.process.start()
        sender.close()

    def receive(self) -> tuple[Answer | None, "_Worker | None"]:
        """Return what it has to say, and who goes on."""
        try:
            if self.answers.poll():
                answer = self.answers.recv()
                self._numbers = self._numbers[1:]
                return answer, self
            self.process.kill()  # it has said nothing for minutes
            raise EOFError
        except EOFError:
            self.process.join()
        if not self._numbers:
            return None, None
        ended = self.process.exitcode or 0
        how = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
        answer = Answer(self._numbers[0], DIED, 0, 0, evidence=f"ended its process: {how}")
        return answer, _Worker(self._seeds, self._seed, self._numbers[1:])


def _judge_all(answers: "Connection[Answer, Answer]", seeds: Seeds, seed: int, numbers: range) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (FUSE_BYTES, FUSE_BYTES))
    with quiet_decoders():
        for number in numbers:
            answers.send(judge_one(make_file(seeds, seed, number), number))


def judge_one(content: bytes, number: int) -> Answer:
    """Judge a file as `validate` does, and prepare it as `preprocess` does if it is kept."""
    before = _reset_peak()
    times: list[float] = []
    png, pixels, wrong = b"", "", ""
    try:
        verdict, again = (_timed(times, lambda: judge(content, **JUDGING)) for _ in range(2))
        if verdict != again:
            wrong = f"judged differently: {verdict} and {again}"
        if not verdict.reason:
            png = _timed(times, lambda: encode_png(content, IMAGE))
            square = _timed(times, lambda: resize_square(decode_upright(content), IMAGE.size_px, IMAGE.resize))
            pixels = hashlib.sha256(square.tobytes()).hexdigest()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
        verdict, wrong = Verdict(reason="raised"), f"raised {type(error).__name__}: {error}"
    seen = {"evidence": verdict.evidence, "format": verdict.format, "png": png, "pixels": pixels}
    return Answer(number, verdict.reason, max(times, default=0), _peak() - before, wrong, **seen)


def _timed(times: list[float], work: Any) -> Any:  # noqa: ANN401 - whatever the work returns
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 2 * SLOW_SECONDS)  # ends the process
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        times.append(time.process_time() - start)


def _reset_peak() -> int:
    """Forget how large this process has been, and return how large it is."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def read_by_tensorflow(shards_dir: Path) -> dict[int, str]:
    """Return what is wrong with each picture as the next stages read it with TensorFlow, or nothing."""
    return {
        int(path): "" if hashlib.sha256(image.tobytes()).hexdigest() == pixels else "TensorFlow reads other pixels"
        for shard in sorted(shards_dir.glob("*.tfrecord"))
        for batch in records.read_shard(shard)
        for image, pixels, path in zip(batch.images, batch.ids, batch.paths, strict=True)
    }


def contain(files: Mapping[int, bytes], raw_dir: Path) -> dict[int, Verdict]:
    """Return the verdicts on files as `validate` comes to them, with its limits, in worker processes."""
    write_shards((RawRecord(str(number), "cat", "", content) for number, content in files.items()), raw_dir)
    candidates = list_candidates(raw_dir)
    verdicts = judge_files(candidates, {}, JUDGING)
    return {int(one.path): verdicts[one.id] for _, some in candidates for one in some}


def run(seeds: Seeds, *, files: int, seed: int, folder: Path) -> Found:
    """Damage, judge, and read back with TensorFlow what was kept; nothing may have failed in the end."""
    shards_dir, raw_dir = folder / "kept", folder / "heavy"
    shards_dir.mkdir()
    raw_dir.mkdir()
    found = fuzz(seeds, files=files, seed=seed, shards_dir=shards_dir)
    read = read_by_tensorflow(shards_dir)
    found.read = sum(not why for why in read.values())
    found.failed |= {number: why for number, why in read.items() if why}
    if found.heavy:
        verdicts = contain({number: make_file(seeds, seed, number) for number in found.heavy}, raw_dir)
        for number, verdict in verdicts.items():
            if not verdict.reason:
                found.failed[number] = f"{found.heavy[number]}, and was kept"
    return found


def find_seeds(archive: Path | None) -> Seeds:
    """Return the files to begin with; real photos are among them where there are any."""
    real: Mapping[str, bytes] = fuzz_seeds.photos(archive) if archive else {}
    return [*fuzz_seeds.generated().values(), *real.values()]


def main(argv: list[str] | None = None) -> None:
    """Damage images from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--archive", type=Path, help="zip of real photos to begin with, too")
    parser.add_argument("--out", type=Path, default=Path("fuzzed"), help="where files that failed are written")
    parser.add_argument("--only", type=int, help="the number of one file")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seeds = find_seeds(args.archive)
    if args.only is not None:
        log.info("%s", judge_one(make_file(seeds, args.seed, args.only), args.only)._replace(png=b""))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = run(seeds, files=args.files, seed=args.seed, folder=Path(folder))
    for number, why in sorted((found.heavy | found.failed).items()):
        args.out.mkdir(exist_ok=True)
        (args.out / str(number)).write_bytes(make_file(seeds, args.seed, number))
        log.info("number %d: %s", number, why)
    log.info("%s", found)


if __name__ == "__main__":
    main()
