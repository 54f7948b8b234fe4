"""Files of our own that were cut short, emptied, swapped, lost or had a bit flipped: named, or no difference to anyone.

Two ways to find it: DVC sees that a file's time or size changed, and makes it anew; what changed under the same time (a
disk, a copy, an object of DVC's cache) the stage that reads it finds, or else `pawline verify`.
"""

import hashlib
import importlib
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from lineage.runs import WORKSPACE, Project
from lineage.verify import verify
from tasks import dvc_cache, features, params, training_state
from tasks.image_table import ImageRow, read_images, write_images
from tests.faults.conftest import Report, Tries
from tests.faults.damage import IN_FOLDER, WHOLE_FILE, Kind, Tally, contents, damaged
from tests.faults.results import Fault
from tests.test_pipeline import run, set_params


class Reader(NamedTuple):
    """A stage by its own command.

    Attributes:
        reads: Folders and files, each of which it must not take as it is when it is damaged.
        writes: Its options for outputs, and what they are in the project.
    """

    reads: tuple[str, ...]
    writes: Mapping[str, str]


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
    "train_head": Reader((FEATURES, BACKBONE), {"stage1-dir": STAGE1}),
    "fine_tune": Reader((FEATURES, BACKBONE, STAGE1), {"stage2-dir": STAGE2, "classifier-out": CLASSIFIER}),
    "evaluate": Reader(
        (TFRECORDS, FEATURES, STAGE1, STAGE2, CLASSIFIER),
        {
            "metrics-out": "reports/metrics/evaluation.json",
            "plots-dir": "reports/plots",
            "predictions-out": PREDICTIONS,
        },
    ),
    "label_errors": Reader(
        (FEATURES, IMAGES),
        {"errors-out": "data/label_errors.parquet", "metrics-out": "reports/metrics/label_errors.json"},
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


@pytest.fixture
def project(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The second of the three runs, which fine-tuned, as the current folder."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run(["git", "reset", "--quiet", "--hard", "HEAD~1"], three_runs)
    run(["dvc", "checkout", "--quiet"], three_runs)
    return three_runs


def files_of(project: Path, names: tuple[str, ...]) -> list[tuple[Path, tuple[Kind, ...]]]:
    """The files that a stage reads, and how each can be damaged: only of a folder's does anything know the others."""
    found: list[tuple[Path, tuple[Kind, ...]]] = []
    for path in (project / name for name in names):
        inside = [(file, IN_FOLDER) for file in sorted(path.rglob("*")) if file.is_file()]
        found += inside if path.is_dir() else [(path, WHOLE_FILE)]
    return found


def read_damaged(name: str, project: Path, chance: random.Random, count: int) -> Tally:
    """Let a stage read damaged files, each try another, into a folder beside the project."""
    reader, out = READERS[name], project.parent / "out"
    main: Callable[[list[str]], None] = importlib.import_module(f"tasks.{name}").main
    options = [text for option, path in reader.writes.items() for text in (f"--{option}", str(out / Path(path).name))]
    expected = contents(*(project / path for path in reader.writes.values()))
    tally, files = Tally.empty(), files_of(project, reader.reads)
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
    tally = read_damaged(name, project, chance, tries(20, 100) if name in QUICK else tries(0, 20))
    what = f"files that {name} reads, damaged under the same time"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)


@pytest.mark.parametrize("name", ["preprocess", "features"])
def test_what_is_taken_over_is_what_was_made(
    name: str, project: Path, chance: random.Random, tries: Tries, report: Report
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
    for number in range(tries(2, 10)):
        if number % 2:
            shutil.rmtree(folder)
            record.unlink()
        path = chance.choice(in_cache if number % 2 else [record, *folder.iterdir()])
        with damaged(path, chance.choice(WHOLE_FILE), chance) as how:
            tally.note(how, lambda: main([]), lambda: contents(folder, record) == expected, ())
    what = f"earlier outputs of {name}, damaged in their place and in DVC's cache"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named, "all that was damaged can be made anew"


def test_a_damaged_state_of_a_training_is_not_taken_up(
    project: Path, chance: random.Random, tries: Tries, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = training_state.keep

    def die_after_an_epoch(*args: object) -> None:
        keep(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    interrupt_and_damage(
        *("train_head", die_after_an_epoch, (training_state, "keep")),
        *(project, chance, tries(1, 8), report, monkeypatch),
    )


def test_damaged_features_of_an_interrupted_run_are_computed_anew(
    project: Path,
    chance: random.Random,
    tries: Tries,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    whole_suite_only: None,
) -> None:
    shutil.rmtree(project / ".dvc/cache")  # from where all would be taken over

    def die_before_the_end(*_: object) -> None:
        raise KeyboardInterrupt

    interrupt_and_damage(
        *("features", die_before_the_end, (features, "_hand_over")),
        *(project, chance, tries(1, 6), report, monkeypatch),
    )


def interrupt_and_damage(
    name: str,
    die: Callable[..., None],
    where: tuple[object, str],
    project: Path,
    chance: random.Random,
    count: int,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupt a stage, damage what it has left in .pawline, and run it again."""
    outs = [project / path for path in READERS[name].writes.values()]
    expected, tally = contents(*outs), Tally.empty()
    main: Callable[[list[str]], None] = importlib.import_module(f"tasks.{name}").main
    for _ in range(count):
        for out in outs:
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(*where, die)  # type: ignore[call-overload]
            with pytest.raises(KeyboardInterrupt):
                main([])
        left = sorted(path for path in (project / ".pawline").rglob("*") if path.is_file())
        with damaged(chance.choice(left), chance.choice(WHOLE_FILE), chance, put_back=False) as how:
            tally.note(how, lambda: main([]), lambda: contents(*outs) == expected, ())
    what = f"what an interrupted {name} has left, damaged"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named, "all that was damaged can be made anew"


def test_dvc_makes_anew_what_was_damaged(
    project: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """Files whose time or size says that they changed: nothing is lost, and the next `dvc repro` puts all back."""
    outs = [project / out.path for locked in Project(project).lock(WORKSPACE).values() for out in locked.outs]
    files = files_of(project, tuple(str(out.relative_to(project)) for out in outs))
    expected, tally = contents(*outs, project / "dvc.lock"), Tally.empty()
    for _ in range(tries(0, 6)):
        done: list[str] = []
        for path, kinds in chance.sample(files, 4):
            with damaged(path, chance.choice(kinds), chance, put_back=False) as how:
                done.append(how)
        same = lambda: contents(*outs, project / "dvc.lock") == expected  # noqa: E731 - short
        tally.note("; ".join(done), lambda: run(["dvc", "repro"], project) and None, same, ())
    what = "four outputs at a time, damaged, before `dvc repro`"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named


def test_a_damaged_object_of_dvcs_cache_is_named_not_used(
    project: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """DVC checks objects of its cache out as they are: the stage that reads one says so, and then how to go on."""
    held, seen, count = 0, [], tries(0, 3)
    for number in range(count):
        path = chance.choice([path for path in (project / FEATURES).iterdir() if "pooled" in path.name])
        project_of = Project(project)
        md5 = project_of.store.find_md5(project_of.lock(WORKSPACE), str(path.relative_to(project)))
        assert md5 is not None
        with damaged(project_of.store.object_path(md5), "flipped", chance) as how:
            shutil.rmtree(project / FEATURES)
            set_params(project, {"train_head.learning_rate": 0.001 + number / 1e6})
            done = run(["dvc", "repro", "train_head"], project, check=False)
            named = f"error: {path.relative_to(project)} is damaged (not what was written)" in done.stderr
            links = [link for link in verify(Project(project), WORKSPACE) if link.status == "tampered"]
            known = str(path.relative_to(project)) in {link.name for link in links}
            held += done.returncode != 0 and named and known and "Traceback" not in done.stderr
            seen.append(how)
        run(["dvc", "checkout", "--force", "--quiet", FEATURES], project)
        shutil.rmtree(project / FEATURES)
        run(["dvc", "checkout", "--force", "--quiet", FEATURES], project)
    what = "features damaged in DVC's cache, brought back by `dvc repro`, read by the next stage"
    report(Fault.CORRUPT_FILES, what, tries=count, held=held, seen="named by the stage and by `pawline verify`")


def test_verify_finds_whatever_was_damaged(project: Path, chance: random.Random, tries: Tries, report: Report) -> None:
    """All outputs, Data Docs, metrics and exports among them, under the same time; of the cache, too."""
    lock, store = Project(project).lock(WORKSPACE), Project(project).store
    outs = [out for locked in lock.values() for out in locked.outs]
    files = files_of(project, tuple(out.path for out in outs))
    count, per_run, missed = tries(1, 8), 12, list[str]()
    for _ in range(count):
        with ExitStack() as stack:
            chosen = chance.sample(files, per_run)
            hows = {
                str(path.relative_to(project)): stack.enter_context(
                    damaged(path, chance.choice(kinds), chance, quietly=True)
                )
                for path, kinds in chosen
            }
            broken = {link.name for link in verify(Project(project), WORKSPACE) if not link.holds}
            missed += [how for name, how in hows.items() if name not in broken]
    assert store.cache_dir.is_dir()
    tried = count * per_run
    what = "outputs damaged under the same time, before `pawline verify`"
    report(Fault.CORRUPT_FILES, what, tries=tried, held=tried - len(missed), seen="; ".join(missed[:5]))


def test_no_flipped_bit_of_a_table_changes_what_is_read(
    tmp_path: Path, chance: random.Random, tries: Tries, report: Report
) -> None:
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(60)]
    rows = [ImageRow(id=one, path=f"cat/{one}.jpg", label="cat", width=int(one[:3], 16), bytes=7) for one in ids]
    path = tmp_path / "images.parquet"
    write_images(rows, path)
    expected, content = read_images(path), path.read_bytes()
    tally = Tally.empty()
    bits = range(len(content) * 8)
    found: list[list[ImageRow]] = []
    for bit in chance.sample(bits, tries(500, 20_000)):
        place, found[:] = bit // 8, []
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit % 8]) + content[place + 1 :])
        tally.note(f"bit {bit}", lambda: found.append(read_images(path)), lambda: found == [expected], (path.name,))
    what = "single bits of a Parquet table"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_damaged_text_is_refused_in_a_line_or_says_what_it_says(
    name: str, project: Path, chance: random.Random, tries: Tries, report: Report
) -> None:
    """A digit that became another is a change that git shows, and `pawline verify` too: nobody else can know."""
    path, root, tally = project / name, project, Tally.empty()

    def read() -> None:
        if name == "params.yaml":
            params.check_params(path)
        else:
            Project(root).lock(WORKSPACE)
            dvc_cache.find_output(root, root / FEATURES)

    for _ in range(tries(25, 400)):
        with damaged(path, chance.choice(WHOLE_FILE), chance) as how:
            tally.note(how, read, lambda: True, (name,))
    what = f"a damaged {name}"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
