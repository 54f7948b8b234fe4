"""Damage to our own files that DVC, `pawline verify`, the registry and those who answer photos are to find."""

import hashlib
import random
import re
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from inference.classifier import load
from lineage.runs import WORKSPACE, Project, find_run
from lineage.verify import verify
from registry.champion import promote
from registry.register import register
from tasks import dvc_cache, params, time_exports
from tasks.image_table import ImageRow, read_images, write_images
from tests.faults.conftest import Report, Tries
from tests.faults.damage import WHOLE_FILE, Tally, contents, damaged
from tests.faults.results import Fault
from tests.faults.test_corrupt_files import FEATURES, files_of
from tests.faults.test_corrupt_files import made_project as made_project  # the fixtures
from tests.faults.test_corrupt_files import project as project
from tests.plumbing import git
from tests.test_pipeline import run, set_params
from tests.typed import type_here


def test_dvc_makes_anew_what_was_damaged(
    project: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """Files whose time or size says that they changed: nothing is lost, and the next `dvc repro` puts all back."""
    outs = [project / out.path for locked in Project(project).lock(WORKSPACE).values() for out in locked.outs]
    files = files_of(project, tuple(str(out.relative_to(project)) for out in outs))
    expected, tally = contents(*outs, project / "dvc.lock"), Tally.empty()
    for _ in range(tries(0, 3)):
        done: list[str] = []
        for path, kinds in chance.sample(files, 4):
            with damaged(path, chance.choice(kinds), chance, put_back=False) as how:
                done.append(how)
        same = lambda: contents(*outs, project / "dvc.lock") == expected  # noqa: E731 - short
        tally.note("; ".join(done), lambda: run(["dvc", "repro"], project), same, ())
    what = "four outputs at a time, damaged, before `dvc repro`"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)
    assert not tally.named


def test_a_damaged_object_of_dvcs_cache_is_named_not_used(
    project: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """DVC checks objects of its cache out as they are: the stage that reads one says so; `verify` says how to go on."""
    tally, count = [], tries(0, 2)
    store, lock = Project(project).store, Project(project).lock(WORKSPACE)
    for number in range(count):
        path = chance.choice([path for path in (project / FEATURES).iterdir() if "pooled" in path.name])
        name, before = str(path.relative_to(project)), path.read_bytes()
        kept = store.object_path(str(store.find_md5(lock, name)))
        with damaged(kept, "flipped", chance, quietly=True):
            shutil.rmtree(project / FEATURES)
            set_params(project, {"train_head.learning_rate": 0.001 + (number + 1) / 1e6})
            done = run(["dvc", "repro", "train_head"], project, check=False)
            said = f"error: {name} is damaged (not what was written)" in done.stderr and done.returncode != 0
            advice = next(link.detail for link in verify(Project(project), WORKSPACE) if link.name == name)
            shown = f"`rm {kept.relative_to(project)} {name}`, then `dvc repro`"
            kept.unlink()
            path.unlink()
            run(["dvc", "repro", "train_head"], project)
            tally.append(said and shown in advice and path.read_bytes() == before == kept.read_bytes())
    run(["git", "checkout", "--quiet", "params.yaml", "dvc.lock"], project)
    run(["dvc", "checkout", "--force", "--quiet"], project)
    what = "features damaged in DVC's cache, brought back by `dvc repro`, read by the next stage"
    seen = "named by the stage and by `pawline verify`, whose advice gave the bytes back"
    report(Fault.CORRUPT_FILES, what, tries=count, held=sum(tally), seen=seen)


def test_verify_finds_whatever_was_damaged(project: Path, chance: random.Random, tries: Tries, report: Report) -> None:
    """All outputs, Data Docs, metrics and exports among them, under the same time; of the cache, too."""
    lock, store = Project(project).lock(WORKSPACE), Project(project).store
    outs = [out for locked in lock.values() for out in locked.outs]
    files = files_of(project, tuple(out.path for out in outs))
    count, per_run, missed = tries(1, 5), 12, list[str]()
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
    for bit in chance.sample(bits, tries(500, 5_000)):
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

    for _ in range(tries(25, 200)):
        with damaged(path, chance.choice(WHOLE_FILE), chance) as how:
            tally.note(how, read, lambda: True, (name,))
    what = f"a damaged {name}"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)


def test_a_damaged_export_answers_nothing_else(
    project: Path, chance: random.Random, tries: Tries, report: Report
) -> None:
    """What `pawline predict` and `pawline serve` load; and what `pawline report` times, which is every format."""
    folder, said = project / "models/export", list[float]()
    photo = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)

    def answer() -> None:
        said[:] = load(folder).probabilities(photo).ravel().tolist()

    answer()
    expected, tally = said[:], Tally.empty()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for number in range(tries(12, 48)):
        said.clear()
        path = files[number % len(files)]
        with damaged(path, chance.choice(WHOLE_FILE), chance) as how:
            tally.note(how, answer, lambda: said == expected, (path.name,))
            if path.name != "export.json":
                times = partial(time_exports.time_exports, export_dir=folder, out=project / "times.json")
                tally.note(how, times, lambda: False, (path.name,))
    report(Fault.CORRUPT_FILES, "exports, damaged", tries=tally.tries, held=tally.held, seen=tally.seen)


def test_a_damaged_registry_is_named(
    three_runs: Path, chance: random.Random, tries: Tries, report: Report, whole_suite_only: None
) -> None:
    """The branch with decisions, signatures and lineage documents, and the tags: git's objects and refs."""
    register(Project(three_runs), find_run(Project(three_runs), "HEAD"), reason="a test")
    promote(Project(three_runs), find_run(Project(three_runs), "v1"), reason="")
    tags = git("for-each-ref", "--format=%(refname)", "refs/tags").split()
    listed = git("rev-list", "--objects", "refs/heads/registry").splitlines()
    names = {ref: [ref, ref.removeprefix("refs/tags/")] for ref in ("refs/heads/registry", *tags)}
    for line in [*listed, *(git("rev-parse", tag).strip() for tag in tags)]:
        object_id, _, file = line.partition(" ")
        path = f"objects/{object_id[:2]}/{object_id[2:]}"
        names[path] = [path, object_id[:10], *([file] if "." in file else [])]  # no folder: all its files have its name
    kept = three_runs / ".git"
    paths = [path for path in names if (kept / path).is_file()]
    commands = ("models", "lineage champion", "verify champion", "verify v1")
    tally, expected = Tally.empty(), {command: typed(command) for command in commands}
    assert {code for code, _ in expected.values()} == {0}
    for number in range(tries(1, 48)):
        command, path = commands[number % len(commands)], chance.choice(paths)
        with damaged(kept / path, chance.choice(WHOLE_FILE), chance) as how:
            code, screen = typed(command)
        if (code, screen) == expected[command]:
            tally.harmless.append(how)
        elif code == 1 and is_named(names[path], screen):
            tally.named.append(how)
        else:
            tally.wrong.append(f"{command}, {path}, {how}: {code}, {screen!r}")
    assert tally.named
    what = "objects and refs of the registry, damaged, before `pawline models`, `lineage` and `verify`"
    report(Fault.CORRUPT_FILES, what, tries=tally.tries, held=tally.held, seen=tally.seen)


def typed(command: str) -> tuple[int, str]:
    """Type a command; return its exit code and the screen, without what differs from run to run."""
    code, screen = type_here(command)
    return code, re.sub(r"; .* in [0-9.]+ s", "", screen)


def is_named(names: list[str], screen: str) -> bool:
    """Say whether the screen names what is damaged: in the one line of an error, or in a link of `pawline verify`."""
    told = [line for line in screen.splitlines() if re.match(r"error: |  (TAMPERED|MISSING) ", line)]
    if any(line.startswith("error: ") for line in told) and len(told) != 1:
        return False
    return any(name in line for line in told for name in names)
