"""`pawline predict` on a folder of photos, against Keras's `model.predict` called once a photo.

    python -m benchmarks.predict photos                          the project's own classifier
    python -m benchmarks.predict photos --model models/export --rounds 5

Each round runs the command once for each precision, from its start to its end, and a loop of `model.predict` over some
of the photos, decoded as the command decodes them. Prints images a second of each, the median over the rounds, and how
many times faster than the loop the command is, round by round. The time of TensorFlow's import and of loading the Keras
model is left out on the loop's side; nothing is left out on the command's. Last, one photo: the command's seconds.
"""

import argparse
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

from inference import models
from inference.classifier import load
from inference.inputs import Walk

SINGLE_PHOTOS = 40  # of the loop, each round
ONE_PHOTO_RUNS = 5
PRECISIONS = ("float32", "bfloat16")


def run_command(photos: Path, *options: str) -> float:
    """Return the seconds of `pawline predict`, from the start of its process to the end."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "predict", str(photos), *options]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


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
    rates: dict[str, list[float]] = {name: [] for name in ("one by one", *PRECISIONS)}
    for _ in range(rounds):
        rates["one by one"].append(single.rate())
        for precision in PRECISIONS:
            options = [*chosen, "--engine", "openvino", "--precision", precision, "--csv", "-"]
            rates[precision].append(count / run_command(photos, *options))
    print(f"{count:,} photos, {rounds} rounds; start-up and decoding are included, TensorFlow's start is not")
    for name, measured in rates.items():
        times = statistics.median(fast / slow for fast, slow in zip(measured, rates["one by one"], strict=True))
        print(f"{name:<12}{statistics.median(measured):>8.1f} images a second{times:>8.1f} times")
    one = next(iter(Walk([str(photos)], sys.stdin.buffer))).name
    seconds = [run_command(Path(one), *chosen) for _ in range(ONE_PHOTO_RUNS)]
    print(f"one photo   {statistics.median(seconds):>8.2f} seconds from the start of the process to its end")


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
