"""`pawline lineage` as a user types it, on three real runs: what it prints, and what it says when it cannot."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.commands.lineage import lineage_command
from lineage.records import Lineage
from lineage.runs import Project, find_run
from lineage.trace import trace
from registry.records import Entry
from tasks.stage import PawlineError
from tests.plumbing import git, keep_in_registry

MODEL = "models/classifier.keras"


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(lineage_command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def lineage(*arguments: str) -> str:
    return invoke(*arguments).stdout


def traced(what: str | None = None) -> Lineage:
    project = Project(Path.cwd())
    return trace(project, find_run(project, what))


def test_a_tree_of_every_kind_of_run(three_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    git("tag", "classifier@v2.0.0", "HEAD~1")
    here = lineage()
    assert here.startswith(f"{MODEL}  {traced().model.md5[:10]}  ")
    assert len(here.splitlines()) < 130, "two screens"
    assert max(map(len, here.splitlines())) <= 100
    assert "\x1b" not in here
    titles = [
        "made by",
        "fine_tune",
        "train_head",
        "features",
        "backbone",
        "preprocess",
        "validate",
        "ingest",
        "source",
    ]
    places = [here.index(f"── {title}") for title in [*titles, "used by", "with"]]
    assert places == sorted(places)
    second = lineage("v2")
    assert second != here
    assert "v2.0.0\n" in second
    assert lineage("HEAD~1") == second
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, lineage().splitlines())) <= 60

    copy = tmp_path / "download.bin"
    shutil.copyfile(Project(three_runs).store.object_path(traced("v2").model.md5), copy)
    monkeypatch.chdir(three_runs / "data")
    monkeypatch.setenv("COLUMNS", "100")
    first_line = f"this file is {MODEL} of v2.0.0 ({git('rev-parse', 'HEAD~1')[:10]})\n"
    assert lineage(str(copy)) == first_line + second
    for name, whose in (
        ("images.parquet", "data/images.parquet"),
        ("../models/stage1/head.keras", "models/stage1/head.keras"),
    ):
        monkeypatch.chdir(three_runs / "data")
        assert lineage(name).startswith(f"this file is {whose} of the workspace\n"), "a name from where the user stands"
    copy.write_bytes(b"a stranger's")
    with pytest.raises(
        PawlineError, match=r"download.bin is unknown: no run recorded here wrote a file of its content"
    ):
        lineage(str(copy))


def test_other_forms(three_runs: Path) -> None:
    copy = three_runs.parent / "copy"
    shutil.copyfile(MODEL, copy)
    printed = invoke(str(copy), "--json")
    assert Lineage.model_validate_json(printed.stdout) == traced()
    assert printed.stderr == f"this file is {MODEL} of the workspace\n", "stdout is for programs"
    events = [json.loads(line) for line in lineage("--openlineage").splitlines()]
    assert {event["job"]["name"] for event in events} >= {stage.name for stage in traced().stages}
    assert "entity" in json.loads(lineage("--prov"))
    assert json.loads(lineage("--cyclonedx"))["bomFormat"] == "CycloneDX"
    assert lineage("HEAD~1", "--html", "pages/one.html") == f"{three_runs}/pages/one.html: open it in a browser\n"
    assert traced("HEAD~1").model.md5 in Path("pages/one.html").read_text(encoding="utf-8")
    Path("pages/link.html").symlink_to("one.html")
    lineage("HEAD", "--html", "pages/link.html")
    assert traced("HEAD").model.md5 in Path("pages/one.html").read_text(encoding="utf-8"), "a link is written through"
    assert "train_head.learning_rate: 0.001 -> 0.0005" in lineage("HEAD~2", "HEAD~1")
    assert json.loads(lineage("HEAD~2", "HEAD~1", "--json"))


def test_photos_and_predictions(three_runs: Path) -> None:
    both = json.loads(lineage("data/predictions.parquet#0", "--json"))
    assert Lineage.model_validate(both["lineage"]) == traced()
    image = both["photo"]["id"]
    photo = lineage("--image", image[:12])
    assert image[:10] in photo
    assert lineage(f"data/predictions.parquet#{image[:12]}") == f"{photo}\n{lineage()}"
    shutil.copyfile("data/predictions.parquet", "../other name")
    with pytest.raises(PawlineError, match="other name has no row 999"):
        lineage("../other name#999")


def test_a_version_whose_files_are_gone_is_told_by_its_entry(three_runs: Path) -> None:
    git("tag", "classifier@v1.0.0", "HEAD~2")
    whole = traced("v1")
    assert whole.commit is not None
    entry = Entry(version="v1.0.0", commit=whole.commit.id, sha256={}, lineage=whole)
    keep_in_registry("versions/v1.0.0/entry.json", entry.model_dump_json())
    assert invoke("v1").stderr == "", "the files are here"
    shutil.rmtree(".dvc/cache")
    told = invoke("v1", "--json")
    assert Lineage.model_validate_json(told.stdout) == whole
    assert (
        "files are not here: this is what the registry's entry of v1.0.0 says (`pawline verify v1.0.0`" in told.stderr
    )
    of_another = entry.model_copy(update={"lineage": traced("HEAD")})
    keep_in_registry("versions/v1.0.0/entry.json", of_another.model_dump_json())
    with pytest.raises(PawlineError, match=r"^tampered: the registry's entry of v1.0.0 is about another run"):
        lineage("v1")

    missing = lineage()
    assert "not known here" in missing
    assert "reports/metrics/evaluation.json" in missing
    assert "`dvc pull`" in missing
    shutil.rmtree(".git")
    without_git = lineage()
    assert "commit   " not in without_git
    assert "── source" in without_git


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "--prov"], "--json and --prov exclude each other: give one of them"),
        (["--html", "x.html", "--cyclonedx"], "--cyclonedx and --html exclude each other"),
        (["--html", "dvc.lock"], "--html dvc.lock: a page's name ends in .html"),
        (["a", "b", "--image", "abc"], "--image asks about one run"),
        (["x.parquet#1", "--image", "abc"], "--image asks about one run"),
        (["x.parquet#1", "b"], "rows of predictions are not compared"),
        (["a", "b", "--prov"], "--prov is about one model"),
        (["--image", "abc", "--html", "x.html"], "--html is about one model"),
        (["x.parquet#1"], "there is no file x.parquet"),
        (["classifier#champion#1"], "there is no git repository here"),
        ([], "workspace has no dvc.lock: nothing ran there yet; `dvc repro`"),
        (["--html", "dvc.yaml/x.html"], "workspace has no dvc.lock"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(PawlineError) as caught:
        lineage(*arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_page_that_cannot_be_written_is_refused_in_one_line(three_runs: Path) -> None:
    Path("file").touch()
    with pytest.raises(PawlineError, match=r"^--html .*file/x.html: .*: choose another place$"):
        lineage("--html", "file/x.html")
