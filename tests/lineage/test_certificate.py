import hashlib
import json
from pathlib import Path

import jsonschema
import pytest

from lineage.certificate import Certificate, certify, code_commit, content, write
from lineage.reproduce import Environment, OutputRebuild, Reproduction, StageRebuild
from lineage.runs import Project, find_run
from lineage.schemas import schema
from tests.test_pipeline import commit, run

ENVIRONMENT = Environment(python="3.11.2", machine="Linux x86_64", processor_features=["avx2"], threads=2, packages={})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A repository whose commit and whose workspace have different files dvc.lock."""
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    commit(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {}  # later\n")
    return Project(tmp_path)


def reproduction(name: str, *rebuilt: str) -> Reproduction:
    """A rebuild of stages that should each have written `a` to a file."""
    stages = [
        StageRebuild(
            name=f"stage{number}",
            seconds=1.5,
            outputs=[
                OutputRebuild(
                    path=f"out{number}",
                    recorded="a",
                    rebuilt=md5,
                    identical=md5 == "a",
                    bytes=10**6,
                    sha256={f"out{number}": "b"},
                    differing_files=[],
                )
            ],
        )
        for number, md5 in enumerate(rebuilt)
    ]
    return Reproduction(
        run=name, commit=None, stages=stages, seconds=3.0, environment=ENVIRONMENT, environment_differences=[]
    )


def test_it_says_what_was_rebuilt_and_the_verdict(project: Project) -> None:
    head = run(["git", "rev-parse", "HEAD"], project.root).stdout.strip()
    made = certify(project, find_run(project, "HEAD~0"), reproduction("HEAD~0", "a", "a"))
    assert (made.name, made.commit) == (head[:10], head), "HEAD~0 means another commit tomorrow"
    assert made.lock_sha256 == hashlib.sha256(b"stages: {}\n").hexdigest()
    assert (made.identical, made.first_divergence) == (True, None)
    assert made.verdict == "identical, byte for byte: 2 outputs of 2 stages, 2 MB"
    other = certify(project, find_run(project, None), reproduction("workspace", "a", "c", "d"))
    assert (other.name, other.commit) == ("workspace", None)
    assert other.lock_sha256 == hashlib.sha256(b"stages: {}  # later\n").hexdigest()
    assert (other.identical, other.first_divergence) == (False, "stage1")
    assert other.verdict == "diverges first in `stage1`: out1"


def test_it_is_written_as_the_schema_says(project: Project) -> None:
    made = certify(project, find_run(project, None), reproduction("workspace", "a"))
    path = write(made, project.root)
    assert path == Path("reports/certificates/workspace.json")
    assert (project.root / path).read_bytes() == content(made)
    assert Certificate.model_validate_json(content(made)) == made
    document = json.loads(content(made))
    jsonschema.validate(document, schema("certificate"))
    del document["lock_sha256"]
    with pytest.raises(jsonschema.ValidationError, match="lock_sha256"):
        jsonschema.validate(document, schema("certificate"))


def test_the_code_s_commit_is_given_only_if_it_is_that_code(tmp_path: Path) -> None:
    for name in ("lineage", "tasks", ".venv/lineage"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "module.py").touch()
    assert code_commit(tmp_path) is None, "no repository"
    (tmp_path / ".gitignore").write_text(".venv/\n")
    commit(tmp_path)
    assert code_commit(tmp_path) == run(["git", "rev-parse", "HEAD"], tmp_path).stdout.strip()
    assert code_commit(tmp_path / ".venv") is None, "installed, and not kept by the repository around it"
    (tmp_path / "tasks/module.py").write_text("# changed\n")
    assert code_commit(tmp_path) is None
