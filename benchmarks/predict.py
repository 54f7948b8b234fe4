"""`pawline predict` on a folder of photos, against Keras's `model.predict` called once a photo.

    python -m benchmarks.predict photos                          the project's own classifier
    python -m benchmarks.predict photos --model models/export --rounds 5

Each round runs the command once for each precision, and a loop of `model.predict` over some of the photos, decoded as
the command decodes them. Prints images a second, the median over the rounds, and how many times faster than the loop
the command is, round by round: as the command says it, start-up left out on both sides; and, of the command alone, from
the start of its process to the end. Last, one photo: the command's seconds from start to end.
"""

import argparse
import math
import re
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from inference import models
from inference.classifier import load
from inference.inputs import Walk

SINGLE_PHOTOS = 40  # of the loop, each round
ONE_PHOTO_RUNS = 5
PRECISIONS = ("float32", "bfloat16")


class Timed(NamedTuple):
    """A run of the command: seconds from the start of its process to the end, and images a second as it said it."""

    seconds: float
    rate: float


def run_command(photos: Path, *options: str) -> Timed:
    """Run `pawline predict`; of few photos it says no rate, which is then nan."""
    command = [sys.executable, "-P", "-c", "from flows.cli import main; main()", "predict", str(photos), *options]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    said = re.search(r"([\d,]+) images a second", done.stderr)
    return Timed(time.perf_counter() - began, float(said[1].replace(",", "")) if said else math.nan)


class SinglePhotos:
    """A loop of `model.predict` on one photo at a time, as a first script would do it."""

    def __init__(self, export_dir: Path, photos: Path) -> None:
        """Load the Keras classifier, and decide on the photos."""
        from tasks import keras_files

        self._classifier = load(export_dir)
        self._network = keras_files.load_model(export_dir / "classifier.keras")
        self._photos = list(islice(Walk([str(photos)], sys.stdin.buffer), SINGLE_PHOTOS))
        self.rate()  # the first call traces the network

    def rate(self) -> float:
        """Return images a second."""
        began = time.perf_counter()
        for photo in self._photos:
            self._network.predict(self._classifier.prepare(photo.read())[None], verbose=0)
        return len(self._photos) / (time.perf_counter() - began)


def compare(photos: Path, model: str | None, rounds: int) -> None:
    """Run both in turn and print the figures."""
    export_dir = models.find(model, Path.cwd()).export_dir
    chosen = ["--model", model] if model else []
    count = sum(1 for _ in Walk([str(photos)], sys.stdin.buffer))
    single = SinglePhotos(export_dir, photos)
    loop: list[float] = []
    runs: dict[str, list[Timed]] = {precision: [] for precision in PRECISIONS}
    for _ in range(rounds):
        loop.append(single.rate())
        for precision in PRECISIONS:
            options = [*chosen, "--engine", "openvino", "--precision", precision]
            runs[precision].append(run_command(photos, *options))
    print(f"{count:,} photos, {rounds} rounds; decoding is included")
    print(f"one by one{statistics.median(loop):>10.1f} images a second")
    for precision, timed in runs.items():
        rate = statistics.median(run.rate for run in timed)
        times = statistics.median(run.rate / slow for run, slow in zip(timed, loop, strict=True))
        whole = count / statistics.median(run.seconds for run in timed)
        print(f"{precision:<10}{rate:>10.1f} images a second, {times:.1f} times; {whole:.1f} with start-up")
    one = next(iter(Walk([str(photos)], sys.stdin.buffer))).name
    seconds = [run_command(Path(one), *chosen).seconds for _ in range(ONE_PHOTO_RUNS)]
    print(f"one photo {statistics.median(seconds):>10.2f} seconds from the start of the process to its end")


def main() -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--model", help="as `pawline predict` takes it")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    compare(args.photos, args.model, args.rounds)


if __name__ == "__main__":
    main()
