"""The committed schemas are those of the models, and a real document keeps to its schema."""

import json
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest

from flows.cli import app
from lineage.runs import Project, find_run
from lineage.schemas import DIALECT, DOCUMENTS, FOLDER, schema, write_schemas
from lineage.trace import trace

COMMITTED = Path(__file__).parents[2] / FOLDER


def test_the_committed_files_are_what_the_models_give(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.iterdir()}
    assert committed == made, "python -m lineage.schemas writes them anew"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_one_and_has_a_name_of_its_own(name: str) -> None:
    made = schema(name)
    jsonschema.Draft202012Validator.check_schema(made)
    assert (made["$schema"], made["$id"]) == (DIALECT, f"urn:pawline:schema:{name}:1")
    assert made["additionalProperties"] is False


def test_a_real_lineage_keeps_to_its_schema_and_a_changed_one_does_not(three_runs: Path) -> None:
    project = Project(three_runs)
    document = json.loads(trace(project, find_run(project, "HEAD")).model_dump_json())
    validator = jsonschema.Draft202012Validator(
        json.loads((COMMITTED / "lineage.schema.json").read_text(encoding="utf-8"))
    )
    validator.validate(document)
    assert not validator.is_valid(document | {"author": "nobody"})
    assert not validator.is_valid(document | {"model": None})
    assert not validator.is_valid(document | {"schema_id": "pawline/lineage/0"})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lineage", ["lineage", "HEAD", "--json"]),
        ("differences", ["lineage", "HEAD~1", "HEAD", "--json"]),
        ("verification", ["verify", "--json"]),
        ("why", ["why", "--json"]),
        ("registry", ["models", "--json"]),
    ],
)
def test_what_a_command_prints_keeps_to_its_schema(
    three_runs: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str]
) -> None:
    if name == "registry":
        app(["promote", "HEAD"], standalone_mode=False)
    capsys.readouterr()
    app(arguments, standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json.loads((COMMITTED / f"{name}.schema.json").read_text())).validate(document)


def test_a_photos_story_keeps_to_its_schema(three_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photo, *_) = pq.read_table("data/predictions.parquet", use_threads=False)["id"].to_pylist()
    app(["lineage", "--image", photo, "--json"], standalone_mode=False)
    story = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(json.loads((COMMITTED / "photo.schema.json").read_text())).validate(story)
    assert story["id"] == photo
