"""What a data-parallel stage costs, from real runs of it with one worker, as the simulator takes it."""

import itertools
import shlex
from pathlib import Path
from typing import TypedDict

from benchmarks.cluster_runs import Run, run_on_cluster
from benchmarks.growth import read_stages, remove_outputs
from benchmarks.photos import repeat_archive
from benchmarks.seed_table import Workplace, apply_preset, make_clone, run_timed
from benchmarks.simulator import Work
from tasks import stage
from tasks.params import FeaturesParams, load_section
from tasks.raw import list_chunks
from tasks.stage import PawlineError

BEFORE = ("source", "ingest", "validate", "preprocess", "backbone")
MOST_OTHERS = 0.05


class Costs(TypedDict):
    """What a stage cost on one worker, in seconds; see `Work`."""

    photos: int
    start: float
    start_a_photo: float  # what a photo more adds to it
    end: float
    end_a_photo: float
    serial: float
    warm_up: float
    warm_up_processors: float
    processors: float
    chunks: list[float]
    sizes: list[int]  # photos of each chunk; of features, views


def costs_of(run: Run, photos: int, sizes: list[int]) -> Costs:
    """Work out what a stage costs from a run with one worker on so many photos.

    What the first chunk took longer than others of its size is the worker's warm-up. The client's serial part is the
    processor time of client and scheduler while there were chunks at work.
    """
    seconds = [stop - start for start, stop in run.chunks]
    if len(seconds) != len(sizes):
        raise PawlineError(f"{len(seconds)} chunks were done, and {len(sizes)} expected: were some taken over?")
    usual = sum(seconds[1:]) / sum(sizes[1:]) * sizes[0]
    warm_up = max(0.0, seconds[0] - usual)
    processors = max(1.0, run.working / sum(seconds[1:]))
    warming = (run.warming - usual * processors) / warm_up if warm_up else 1.0
    chunks = [seconds[0] - warm_up, *seconds[1:]]
    serial = run.leading / len(chunks)
    return {
        "photos": photos,
        "start": round(run.chunks[0][0], 3),
        "start_a_photo": 0.0,
        "end": round(run.makespan - max(stop for _, stop in run.chunks) - serial, 3),
        "end_a_photo": 0.0,
        "serial": round(serial, 4),
        "warm_up": round(warm_up, 3),
        "warm_up_processors": round(max(1.0, warming), 2),
        "processors": round(processors, 2),
        "chunks": [round(chunk, 3) for chunk in chunks],
        "sizes": sizes,
    }


def with_growth(many: Costs, few: Costs) -> Costs:
    """Add what a photo more costs the client before and after the chunks, from a run on fewer."""
    more = many["photos"] - few["photos"]
    start, end = (many["start"] - few["start"]) / more, (many["end"] - few["end"]) / more
    return {**many, "start_a_photo": round(max(0.0, start), 7), "end_a_photo": round(max(0.0, end), 7)}


def work_of(costs: Costs, photos: int | None = None) -> Work:
    """Return the work of as many photos as were measured, or of more: measured chunks over and over."""
    chunks, left = [], sum(costs["sizes"]) * (1 if photos is None else photos / costs["photos"])
    for seconds, size in itertools.cycle(zip(costs["chunks"], costs["sizes"], strict=True)):
        if left <= 0:
            break
        chunks.append(seconds * min(1.0, left / size))
        left -= size
    more = 0 if photos is None else photos - costs["photos"]
    start, end = (max(0.0, costs[part] + more * costs[f"{part}_a_photo"]) for part in ("start", "end"))  # type: ignore[literal-required]
    names = ("processors", "warm_up", "warm_up_processors")
    return Work(start, chunks, costs["serial"], end, *(costs[name] for name in names))  # type: ignore[literal-required]


class Project:
    """A clone of the last commit with photos of original size, every stage before the last one done."""

    def __init__(self, folder: Path, archive: Path, photos: int, tries: int) -> None:
        """Run the stages before, unless the folder has them done; a minute for some thousand photos."""
        workplace = Workplace(folder)
        self.photos, self.tries, self.clone = photos, tries, workplace.clone
        made = folder / "made"
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make_clone(workplace)
            repeated = repeat_archive(archive, photos, workplace.root / "photos.zip")
            apply_preset(workplace.clone / "params.yaml", {}, repeated, seed=0)
        self._stages = read_stages(workplace.clone)
        if not made.exists():
            for name in BEFORE:
                run_timed(shlex.split(self._stages[name]["cmd"]), workplace, cwd=self.clone)
            made.touch()

    def run(self, name: str, workers: int, killed_at: float | None = None) -> Run:
        """Run a stage from nothing; `tries` times at most while other processes disturb it."""
        runs: list[Run] = []
        while len(runs) < self.tries and not any(run.others <= MOST_OTHERS for run in runs):
            remove_outputs(self._stages[name], self.clone)
            runs.append(run_on_cluster(shlex.split(self._stages[name]["cmd"]), self.clone, workers, killed_at))
        return min(runs, key=lambda run: run.others)

    def sizes(self, name: str) -> list[int]:
        """Return the photos of each chunk of a stage, in order; of features, their views."""
        if name != "features":
            return [chunk.records for chunk in list_chunks(self.clone / "data" / "raw")]
        views = {"train": load_section(self.clone / "params.yaml", "features", FeaturesParams).views}
        splits = stage.read_json(self.clone / "data" / "tfrecords" / "dataset_info.json")["splits"]
        return [int(length) * views.get(split["name"], 1) for split in splits for length in split["shardLengths"]]
