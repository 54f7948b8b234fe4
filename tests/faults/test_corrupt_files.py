"""Files of our own that were cut short, emptied, swapped, lost or had a bit flipped: named, or no difference to anyone.

Two ways to find it: DVC sees that a file's time or size changed, and makes it anew; what changed under the same time (a
disk, a copy, an object of DVC's cache) the stage that reads it finds, or else `pawline verify`.
"""

import importlib
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from lineage.runs import WORKSPACE, Project
from tasks import features, reuse, training_state
from tasks.reuse import Finished
from tasks.stage import SEAL
from tests.faults.conftest import Report, Tries
from tests.faults.damage import IN_FOLDER, WHOLE_FILE, Kind, Tally, contents, damaged
from tests.faults.results import Fault
from tests.test_pipeline import run


class Reader(NamedTuple):
    """A stage by its own command.

    Attributes:
        reads: Folders and files, each of which it must not take as it is when it is damaged.
        writes: Its options for outputs, and what they are in the project.
        leaves: What is in the names of files that it does not read.
    """

    reads: tuple[str, ...]
    writes: Mapping[str, str]
    leaves: str = "/"


FEATURES, TFRECORDS, BACKBONE = "data/features", "data/tfrecords", "models/backbone"
STAGE1, STAGE2, CLASSIFIER = "models/stage1", "models/stage2", "models/classifier.keras"
RAW, IMAGES, PREDICTIONS = "data/raw", "data/images.parquet", "data/predictions.parquet"
VERDICTS = "data/verdicts"
READERS = {
    "ingest": Reader(("data/source.json",), {"raw-dir": RAW}),
    "validate": Reader(
        (RAW, VERDICTS),
        {
            "images-out": IMAGES,
            "verdicts-dir": VERDICTS,
            "docs-out": "reports/validation",
            "metrics-out": "reports/metrics/validation.json",
        },
    ),
    "preprocess": Reader((RAW, IMAGES), {"tfrecords-dir": TFRECORDS, "record-out": "data/tfrecords.json"}),
    "features": Reader((TFRECORDS, BACKBONE), {"features-dir": FEATURES, "record-out": "data/features.json"}),
    "train_head": Reader((FEATURES, BACKBONE), {"stage1-dir": STAGE1}, "-boundary"),
    "fine_tune": Reader((FEATURES, BACKBONE, STAGE1), {"stage2-dir": STAGE2, "classifier-out": CLASSIFIER}, "-pooled"),
    "evaluate": Reader(
        (TFRECORDS, FEATURES, STAGE1, STAGE2, CLASSIFIER),
        {
            "metrics-out": "reports/metrics/evaluation.json",
            "plots-dir": "reports/plots",
            "predictions-out": PREDICTIONS,
        },
        "train-0",
    ),
    "label_errors": Reader(
        (FEATURES, IMAGES),
        {"errors-out": "data/label_errors.parquet", "metrics-out": "reports/metrics/label_errors.json"},
        "-boundary",
    ),
    "probe": Reader(
        (TFRECORDS, PREDICTIONS, CLASSIFIER),
        {"explanations-out": "data/explanations.parquet", "robustness-out": "reports/metrics/robustness.json"},
    ),
    "export": Reader((RAW, IMAGES, TFRECORDS, CLASSIFIER), {"export-dir": "models/export"}),
    "report": Reader(
        (RAW, IMAGES, PREDICTIONS, BACKBONE, STAGE1, STAGE2, "reports/plots", "data/label_errors.parquet"),
        {"report-out": "reports/index.html", "summary-out": "reports/summary.md"},
    ),
}
# Of these a stage needs a part only, or what it reads of them is no more than a second.
QUICK = ("train_head", "fine_tune", "evaluate", "label_errors", "report")


@pytest.fixture(scope="module")
def made_project(three_runs_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the second of the three runs, which fine-tuned. Tests leave it as it was."""
    folder = tmp_path_factory.mktemp("second") / "project"
    shutil.copytree(three_runs_made / "project", folder, symlinks=True)
    run(["git", "reset", "--quiet", "--hard", "HEAD~1"], folder)
    run(["dvc", "checkout", "--quiet"], folder)
    return folder


@pytest.fixture
def project(made_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That copy, as the current folder."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.chdir(made_project)
    return made_project


def files_of(project: Path, names: tuple[str, ...]) -> list[tuple[Path, tuple[Kind, ...]]]:
    """The files that a stage reads, and how each can be damaged: only of a folder's does anything know the others."""
    found: list[tuple[Path, tuple[Kind, ...]]] = []
    for path in (project / name for name in names):
        # A folder whose seal is lost is taken as it is, and is as it was.
        inside = [(file, WHOLE_FILE if file.name == SEAL else IN_FOLDER) for file in sorted(path.rglob("*"))]
        inside = [(file, kinds) for file, kinds in inside if file.is_file()]
        found += inside if path.is_dir() else [(path, WHOLE_FILE)]
    return found


def read_damaged(name: str, project: Path, chance: random.Random, count: int) -> Tally:
    """Let a stage read damaged files, each try another, into a folder beside the project."""
    reader, out = READERS[name], project.parent / "out"
    main: Callable[[list[str]], None] = importlib.import_module(f"tasks.{name}").main
    options = [text for option, path in reader.writes.items() for text in (f"--{option}", str(out / Path(path).name))]
    expected = contents(*(project / path for path in reader.writes.values()))
    tally = Tally.empty()
    files = [(path, kinds) for path, kinds in files_of(project, reader.reads) if reader.leaves not in path.name]
    for number in range(count):
        # The few and the large ones alike.
        path, kinds = files[number % len(files)] if count > len(files) else chance.choice(files)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        with damaged(path, chance.choice(kinds), chance, quietly=True) as how:
            if VERDICTS in reader.writes.values():  # read as well
                shutil.copytree(project / VERDICTS, out / Path(VERDICTS).name)
            same = lambda: contents(*out.iterdir()) == expected  # noqa: E731 - short
            tally.note(how, lambda: main(options), same, (path.name, path.parent.name))
    return tally


@pytest.mark.parametrize("name", READERS)
def test_a_stage_names_what_is_damaged(
    name: str, project: Path, chance: random.Random, tries: Tries, report: Report
) -> None:
    count = tries(20, 60) if name in QUICK else tries(0, 8)
    if not count:
        pytest.skip("takes seconds a try: `make faults` runs it")
    tally = read_damaged(name, project, chance, count)
    what = f"files that {name} reads, damaged under the same time"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)


@pytest.mark.parametrize("name", ["preprocess", "features"])
def test_what_is_taken_over_is_what_was_made(
    name: str, project: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """Outputs of the run before, and their records: in their place, or in DVC's cache as dvc.lock has it."""
    folder, record = (project / path for path in READERS[name].writes.values())
    expected, tally = contents(folder, record), Tally.empty()
    main: Callable[[list[str]], None] = importlib.import_module(f"tasks.{name}").main
    store, lock = Project(project).store, Project(project).lock(WORKSPACE)
    outs = {out.path: out for locked in lock.values() for out in locked.outs}
    listing = outs[READERS[name].writes[next(iter(READERS[name].writes))]]
    md5s = [listing.md5, *(store.list_folder(listing) or {}).values(), outs[str(record.relative_to(project))].md5]
    in_cache = [*(store.object_path(md5) for md5 in md5s), project / "dvc.lock"]
    for number in range(tries(1, 4)):
        if number % 2:
            shutil.rmtree(folder)
            record.unlink()
        path = chance.choice(in_cache if number % 2 else [record, *folder.iterdir()])
        with damaged(path, chance.choice(WHOLE_FILE), chance) as how:
            tally.note(how, lambda: main([]), lambda: contents(folder, record) == expected, ())
    what = f"earlier outputs of {name}, damaged in their place and in DVC's cache"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named, "all that was damaged can be made anew"


@pytest.mark.parametrize(
    ("name", "where"), [("train_head", (training_state, "keep")), ("features", (features, "_hand_over"))]
)
def test_what_an_interrupted_stage_has_left_is_not_taken_up_when_damaged(
    name: str,
    where: tuple[ModuleType, str],
    project: Path,
    chance: random.Random,
    tries: Tries,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    whole_suite_only: None,
) -> None:
    """The state after an epoch, and finished shards of features, in .pawline: what is damaged is computed anew."""
    monkeypatch.setattr(reuse, "check_output", lambda *_: Finished({}, {}))  # from there features would be taken over
    module, function = where
    finish = getattr(module, function)

    def die(*arguments: object) -> None:
        if name == "train_head":
            finish(*arguments)
        raise KeyboardInterrupt

    outs = [project / path for path in READERS[name].writes.values()]
    expected, tally = contents(*outs), Tally.empty()
    main: Callable[[list[str]], None] = importlib.import_module(f"tasks.{name}").main
    for _ in range(tries(1, 4)):
        for out in outs:
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(module, function, die)
            with pytest.raises(KeyboardInterrupt):
                main([])
        left = sorted(path for path in (project / ".pawline" / name).rglob("*") if path.is_file())
        with damaged(chance.choice(left), chance.choice(WHOLE_FILE), chance, put_back=False) as how:
            tally.note(how, lambda: main([]), lambda: contents(*outs) == expected, ())
    what = f"what an interrupted {name} has left, damaged"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named, "all that was damaged can be made anew"
