"""Champion against challenger: both answer the same photos, each as it was trained to see them.

The models answer in a process of their own (`tasks.score`), which alone needs TensorFlow.
"""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tasks
from lineage.lockfile import Lock
from lineage.rebuild import started
from lineage.runs import MODEL_PATH, Project, Run
from registry.gate import Entrant, judge
from registry.gate_counts import CHALLENGER, CHAMPION, Photos, choose_photos, count
from registry.records import Verdict
from tasks import tables
from tasks.image_table import ImageRow, read_images
from tasks.params import GateParams
from tasks.stage import PawlineError

IMAGES_PATH, LABELS_PATH = "data/images.parquet", "models/stage1/summary.json"
STAGE_ERROR = "error: "  # how tasks.stage begins the line that says why it failed

logger = logging.getLogger(__name__)


class Guess(NamedTuple):
    """A model's answer to a photo, and the probability that it gave it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Disagreement:
    """A photo that one of the two recognised, and the other did not."""

    row: ImageRow
    champion: Guess
    challenger: Guess

    @property
    def challenger_is_right(self) -> bool:
        """Whether it was the challenger that recognised it."""
        return self.challenger.label == self.row.label


@dataclass(frozen=True)
class Contest:
    """How it ended.

    Attributes:
        verdict: What the gate says.
        disagreements: The photos on which one was right and the other wrong, in the data's order.
        raw_dir: The challenger's raw table, which has these photos.
    """

    verdict: Verdict
    disagreements: list[Disagreement]
    raw_dir: Path


def hold(
    project: Project, *, champion: Run | None, challenger: Path, rules: GateParams, name: str = CHALLENGER
) -> Contest:
    """Let both models answer the challenger's test photos, and judge.

    Args:
        project: The checkout, whose cache or remotes have the champion.
        champion: A version; None if there is none yet.
        challenger: A folder with a finished run of the pipeline.
        rules: What is asked of the challenger.
        name: What the challenger is called.

    Raises:
        PawlineError: A file of either is missing, no photo is left to compare on, or the models could not answer.
    """
    with tempfile.TemporaryDirectory(prefix="pawline-gate-") as temporary:
        folder = Path(temporary)
        models = folder / "models"
        entered = {CHALLENGER: _enter_challenger(challenger, models / CHALLENGER)}
        trained_on = None
        if champion is not None:
            entered[CHAMPION] = _enter_champion(project, champion, models / CHAMPION)
            trained_on = _champion_images(project, champion, folder / "champion-images.parquet")
        photos = choose_photos(read_images(challenger / IMAGES_PATH), trained_on)
        rows = _answers(folder, challenger / "data/raw", photos)
        latencies = json.loads((folder / "latencies.json").read_text(encoding="utf-8"))
        labels = {key: _labels(models / key) for key in entered}
    tally = count(rows, challenger / IMAGES_PATH, photos)
    names = {CHALLENGER: name, CHAMPION: "" if champion is None else champion.name}
    entrants = {
        key: Entrant(names[key], sha256, size, latencies[key], labels[key]) for key, (sha256, size) in entered.items()
    }
    verdict = judge(tally, champion=entrants.get(CHAMPION), challenger=entrants[CHALLENGER], rules=rules)
    return Contest(verdict, _disagreements(rows, photos), challenger / "data/raw")


def fetch_champion(project: Project, champion: Run) -> None:
    """Bring what a contest needs of a champion into DVC's cache.

    Raises:
        PawlineError: A file is neither there nor in a remote.
    """
    lock = project.lock(champion)
    for path in (MODEL_PATH, LABELS_PATH, IMAGES_PATH):
        _fetch(project, champion, lock, path)


def _disagreements(rows: list[dict[str, Any]], photos: Photos) -> list[Disagreement]:
    by_id = {row.id: row for row in photos.asked}
    both = [row for row in rows if CHAMPION in row]
    return [
        Disagreement(
            by_id[row["id"]], *(Guess(row[name], row[f"{name}_probability"]) for name in (CHAMPION, CHALLENGER))
        )
        for row in both
        if (row[CHAMPION] == row["label"]) != (row[CHALLENGER] == row["label"])
    ]


def _enter_challenger(run: Path, folder: Path) -> tuple[str, int]:
    """Lay the challenger's files out for tasks.score; return SHA-256 and size of its classifier."""
    for path in (MODEL_PATH, LABELS_PATH, IMAGES_PATH, "params.yaml"):
        if not (run / path).is_file():
            raise PawlineError(f"{run / path} is missing: the challenger's run is not finished; `dvc repro` there")
    folder.mkdir(parents=True)
    for path in (MODEL_PATH, LABELS_PATH, "params.yaml"):
        (folder / Path(path).name).symlink_to((run / path).resolve())
    return _digest(folder / Path(MODEL_PATH).name)


def _enter_champion(project: Project, champion: Run, folder: Path) -> tuple[str, int]:
    """Lay the champion's files out likewise, from git and from DVC's cache or a remote."""
    lock = project.lock(champion)
    folder.mkdir(parents=True)
    for path in (MODEL_PATH, LABELS_PATH):
        (folder / Path(path).name).write_bytes(_fetch(project, champion, lock, path))
    params = project.read(champion, "params.yaml")
    if params is None:
        raise PawlineError(f"{champion.name} has no params.yaml: it is no run of this pipeline")
    (folder / "params.yaml").write_bytes(params)
    return _digest(folder / Path(MODEL_PATH).name)


def _champion_images(project: Project, champion: Run, path: Path) -> list[ImageRow]:
    path.write_bytes(_fetch(project, champion, project.lock(champion), IMAGES_PATH))
    return read_images(path)


def _fetch(project: Project, champion: Run, lock: Lock, path: str) -> bytes:
    content = project.store.read_path(lock, path)
    if content is None:
        raise PawlineError(
            f"{path} of the champion {champion.name} is neither in DVC's cache nor in a remote: check "
            f"{(champion.commit or 'it')[:10]} out and `dvc repro`, or promote another version"
        )
    return content


def _labels(folder: Path) -> frozenset[str]:
    """Return the classes that a model laid out for tasks.score can answer."""
    return frozenset(json.loads((folder / Path(LABELS_PATH).name).read_text(encoding="utf-8"))["labels"])


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _answers(folder: Path, raw_dir: Path, photos: Photos) -> list[dict[str, Any]]:
    """Let the models in a folder answer, and return a row a photo."""
    import pyarrow as pa

    asked = [{"id": row.id, "path": row.path, "label": row.label} for row in photos.asked]
    tables.write_table(pa.Table.from_pylist(asked), folder / "photos.parquet")
    files = ["--raw-dir", str(raw_dir.resolve()), "--photos", "photos.parquet", "--models", "models"]
    files += ["--answers-out", "answers.parquet", "--latencies-out", "latencies.json"]
    with started(["tasks.score", *files], folder, _environment()) as process:
        said = ["no output"]
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in map(str.rstrip, process.stdout):
            said.append(line)
            if not line.startswith(STAGE_ERROR):
                logger.info("%s", line)
        if process.wait() != 0:
            errors = [line.removeprefix(STAGE_ERROR) for line in said if line.startswith(STAGE_ERROR)]
            raise PawlineError(f"the models could not be compared: {(errors or said)[-1]}")
    rows: list[dict[str, Any]] = tables.read_table(folder / "answers.parquet").to_pylist()
    return rows


def _environment() -> dict[str, str]:
    """Return an environment in which this project's modules come first, and end with this process."""
    code = os.pathsep.join([str(Path(tasks.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    # DVC_STAGE: by it, tasks.stage asks to end with its parent.
    return {**os.environ, "PYTHONPATH": code, "PYTHONUNBUFFERED": "1", "DVC_STAGE": "score"}
