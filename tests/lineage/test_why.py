"""Why stages would run: each explanation names what was changed and nothing else, and DVC agrees."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.repo import Repo

from lineage.photo_changes import photo_changes
from lineage.runs import Project, find_run
from lineage.why import StageWhy, Why, explain
from tasks.image_table import read_images, write_images
from tasks.stage import PawlineError
from tests.test_pipeline import run, set_params

DOWNSTREAM = ["train_head", "fine_tune", "evaluate", "label_errors", "probe", "export", "report"]


def own_reasons(why: Why) -> dict[str, list[str]]:
    """By stage, what changed in itself."""
    return {
        stage.stage: [reason.text for reason in stage.reasons if reason.kind not in ("upstream", "always")]
        for stage in why.stages
        if any(reason.kind not in ("upstream", "always") for reason in stage.reasons)
    }


def of_verdict(why: Why, *verdicts: str) -> list[str]:
    return [stage.stage for stage in why.stages if stage.verdict in verdicts]


def dry_run(folder: Path) -> list[str]:
    """Return the stages that DVC would run."""
    with Repo(str(folder)) as repo:
        return [stage.name for stage in repo.reproduce(dry=True)]


def dvc_agrees(why: Why, folder: Path) -> bool:
    """Say whether DVC finds a change in exactly those stages for which there is a reason."""
    with Repo(str(folder)) as repo:
        status = repo.status()
    return sorted(status) == sorted({*own_reasons(why), "source"})


@pytest.fixture
def explained(three_runs: Path) -> Callable[[], Why]:
    return lambda: explain(Project(three_runs))


def test_nothing_changed(three_runs: Path, explained: Callable[[], Why]) -> None:
    why = explained()
    assert of_verdict(why, "runs", "restored", "depends") == dry_run(three_runs) == ["source"]
    assert "it always looks" in why.stage("source").line()
    assert why.stage("evaluate").line() == "evaluate would not run: nothing changed since its last run"
    lock = Project(three_runs).lock(find_run(Project(three_runs), None))
    code = [dep for dep in lock["train_head"].deps if dep.path.startswith("tasks/")]
    assert why.stage("train_head").lines() == [
        f"train_head would not run: its command, {len(code)} code files, 2 inputs and "
        f"{len(lock['train_head'].params)} parameters are as in its last run (dvc.lock), its outputs untouched"
    ]
    assert dvc_agrees(why, three_runs)


def test_parameters_are_named_with_both_values(three_runs: Path, explained: Callable[[], Why]) -> None:
    set_params(three_runs, {"features.views": 2, "features.augment.zoom": 0.2})
    why = explained()
    assert own_reasons(why) == {"features": ["features.augment.zoom 0.1 -> 0.2", "features.views 1 -> 2"]}
    assert of_verdict(why, "runs") == dry_run(three_runs) == ["source", "features"]
    assert of_verdict(why, "depends") == DOWNSTREAM
    assert [reason.text for reason in why.stage("train_head").reasons] == [
        "data/features will be made anew by features, because features.augment.zoom 0.1 -> 0.2 and 1 more"
    ]
    assert "models/classifier.keras may be made anew by fine_tune" in why.stage("export").line()
    assert dvc_agrees(why, three_runs)


def test_what_the_run_cache_has_would_not_run(three_runs: Path, explained: Callable[[], Why]) -> None:
    """The first run's value again, which the run cache has with the photos of the first two runs alone."""
    set_params(three_runs, {"train_head.learning_rate": 0.001})
    assert explained().stage("train_head").verdict == "runs", "never with these photos"
    run(["git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml", "dvc.lock"], three_runs)
    with Repo() as repo:
        repo.checkout()
    set_params(three_runs, {"train_head.learning_rate": 0.001})
    why = explained()
    assert own_reasons(why) == {"train_head": ["train_head.learning_rate 0.0005 -> 0.001"]}
    assert why.stage("train_head").verdict == "restored"
    said = run(["dvc", "repro", "--single-item", "train_head"], three_runs).stdout
    assert "Stage 'train_head' is cached - skipping run" in said
    assert "Running stage" not in said


def test_the_line_of_code_is_shown(three_runs: Path, explained: Callable[[], Why]) -> None:
    heads = Path("tasks/heads.py")
    lines = heads.read_text(encoding="utf-8").splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("def "))
    changed = [*lines[:place], f"{lines[place]}  # changed", *lines[place + 1 :]]
    heads.write_text("\n".join([*changed, ""]), encoding="utf-8")
    why = explained()
    text = f"tasks/heads.py:{place + 1} changed (+1 -1 lines)"
    assert own_reasons(why) == {stage: [text] for stage in ("train_head", "fine_tune", "evaluate")}
    assert why.stage("train_head").lines() == [
        "train_head will run:",
        f"  {text}",
        f"    tasks/heads.py:{place + 1} - {lines[place]}",
        f"    tasks/heads.py:{place + 1} + {lines[place]}  # changed",
    ]
    assert of_verdict(why, "runs") == dry_run(three_runs) == ["source", "train_head", "fine_tune", "evaluate"]
    assert dvc_agrees(why, three_runs)

    run(["git", "commit", "--quiet", "--all", "--message", "Change a line"], three_runs)
    assert explained() == why, "against the last run, not against git"
    heads.write_text("\n" * 20, encoding="utf-8")
    details = explained().stage("train_head").reasons[0].details
    assert len(details) == 7
    assert re.fullmatch(r"\.\.\. and \d+ more lines", details[-1])


def test_code_that_git_never_had_is_said_so(three_runs: Path, explained: Callable[[], Why]) -> None:
    export = Path("tasks/export/__init__.py")
    committed = export.read_bytes()
    export.write_bytes(committed + b"# never committed\n")
    with Repo() as repo:
        repo.commit("export", force=True)
    export.write_bytes(committed)
    why = explained()
    text = "tasks/export/__init__.py changed; its earlier content is not in git's history"
    assert own_reasons(why) == {"export": [text]}
    export.unlink()
    assert own_reasons(explained()) == {"export": ["tasks/export/__init__.py was deleted"]}


def test_outputs_that_are_gone_or_changed(three_runs: Path, explained: Callable[[], Why]) -> None:
    Path("reports/index.html").unlink()
    why = explained()
    assert own_reasons(why) == {"report": ["output reports/index.html was deleted"]}
    assert why.stage("report").verdict == "restored"
    assert dry_run(three_runs) == ["source", "report"]
    assert dvc_agrees(why, three_runs)

    with Path("models/classifier.keras").open("ab") as file:
        file.write(b"by hand")
    why = explained()
    assert own_reasons(why)["fine_tune"] == ["output models/classifier.keras is not what fine_tune wrote"]
    assert set(own_reasons(why)) == {"fine_tune", "report"}
    assert why.stage("export").verdict == "depends", "fine_tune writes its input first"
    with Repo() as repo:
        repo.checkout(force=True)
    assert own_reasons(explained()) == {}, "as the explanation says"


def validated_as_before(folder: Path, moved: dict[str, str]) -> None:
    """Let the photos be those of the run before, validated with other splits: as if `dvc repro validate` had run."""
    lock, before = Path("dvc.lock"), run(["git", "show", "HEAD~1:dvc.lock"], folder).stdout
    text, names = lock.read_text(encoding="utf-8"), ["source", "ingest", "validate"]
    for name in names:
        block = re.compile(rf"(?m)^  {name}:\n(?:    .*\n)+")
        text = block.sub(block.findall(before)[0], text)
    lock.write_text(text, encoding="utf-8")
    with Repo(str(folder)) as repo:
        repo.checkout(targets=names, force=True)
    images = Path("data/images.parquet")
    rows = [replace(row, split=moved.get(row.split, row.split)) for row in read_images(images)]
    images.unlink()
    write_images(rows, images)
    with Repo(str(folder)) as repo:
        repo.commit("validate", force=True)


def test_other_photos_are_counted_and_named(three_runs: Path, explained: Callable[[], Why]) -> None:
    project = Project(three_runs)
    before = Path("data/images.parquet").read_bytes()
    set_params(three_runs, {"data.synthetic_images": 80, "validate.splits": {"train": 0.8, "val": 0.2, "test": 0.0}})
    validated_as_before(three_runs, {"test": "train"})
    changes = photo_changes(before, Path("data/images.parquet").read_bytes())
    why = explained()
    assert set(own_reasons(why)) == {"preprocess", "label_errors", "export", "report"}
    raw, images = why.stage("preprocess").reasons
    assert (raw.kind, raw.about, images.kind, images.about) == ("input", "data/raw", "input", "data/images.parquet")
    assert raw.text.endswith(f"since ingest ran again: {len(changes.added)} added, {len(changes.removed)} removed")
    assert images.text.endswith(changes.summary())
    assert "moved" in images.text
    assert f"added ({len(changes.added)})" in images.details
    assert images.details[1].strip().startswith(f"{changes.added[0].path} (")
    assert why.stage("features").verdict == "depends"
    source = next(reason for reason in why.stage("report").reasons if reason.about == "data/source.json")
    assert source.details == ("images: 90 -> 80",)
    assert of_verdict(why, "skipped") == ["ingest", "validate", "backbone"]
    assert dry_run(three_runs) == ["source", "preprocess", "label_errors", "export", "report"]
    assert dvc_agrees(why, three_runs)
    assert project.lock(find_run(project, None))["preprocess"], "its last run is still on record"


def test_the_command_and_a_stage_that_never_ran(three_runs: Path, explained: Callable[[], Why]) -> None:
    dvc_yaml, lock = Path("dvc.yaml"), Path("dvc.lock")
    dvc_yaml.write_text(
        dvc_yaml.read_text(encoding="utf-8").replace("cmd: python -m tasks.export", "cmd: python3 -m tasks.export")
    )
    assert own_reasons(explained()) == {
        "export": ["command changed: python -m tasks.export -> python3 -m tasks.export"]
    }
    lock.write_text(re.sub(r"(?m)^  export:\n(?:    .*\n)+", "", lock.read_text(encoding="utf-8")), encoding="utf-8")
    assert own_reasons(explained()) == {"export": ["it never ran here (dvc.lock has no run of it)"]}
    lock.unlink()
    why = explained()
    assert why.nothing_ran
    assert why.lines() == ["nothing ran yet: `dvc repro` runs all 13 stages"]
    with pytest.raises(PawlineError, match=r"unknown stage nope: .* source, ingest"):
        why.stage("nope")


def test_a_line_says_how_many_reasons_there_are_beside_the_first(
    three_runs: Path, explained: Callable[[], Why]
) -> None:
    set_params(three_runs, {"features.views": 2, "train_head.epochs": 3})
    head: StageWhy = explained().stage("train_head")
    assert head.verdict == "runs"
    assert head.line() == "train_head will run: train_head.epochs 2 -> 3 (and 1 more: `pawline why train_head`)"
    assert head.lines()[2] == "  data/features will be made anew by features, because features.views 1 -> 2"
