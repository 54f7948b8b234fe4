import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.commands.certify import certify_command
from lineage.certificate import Certificate
from lineage.runs import Project, find_run
from registry import ledger
from registry.register import register
from registry.signing import KEY_VARIABLE
from tasks.stage import PawlineError
from tests.lineage.test_reproduce import make_project
from tests.test_pipeline import STAGES, outputs, run

app = typer.Typer()
app.command()(certify_command)


def pawline_certify(*arguments: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines on the screen."""
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, PawlineError):
        raise done.exception
    return done.exit_code, done.stdout.splitlines()


def test_a_version_is_rebuilt_byte_for_byte_and_the_registry_gets_the_certificate(
    three_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(three_runs)
    register(project, find_run(project, "HEAD"), reason="the best")
    own_key = tmp_path / "own.pem"
    run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(own_key)],
        tmp_path,
    )
    with monkeypatch.context() as patch:
        patch.setenv(KEY_VARIABLE, str(own_key))
        with pytest.raises(
            PawlineError,
            match=r"`pawline admit FILE` with your public key, .*; `pawline certify \w{40}` leaves the registry",
        ):
            pawline_certify("v1")
    exit_code, lines = pawline_certify("v1")
    assert exit_code == 0, lines
    assert [line.split()[0] for line in lines[1:-1]] == list(STAGES)
    assert all(line.endswith(" identical") for line in lines[1:-1])
    assert lines[-1].startswith("identical, byte for byte: 25 outputs of 13 stages, ")
    assert lines[-1].endswith("; certificate: reports/certificates/v1.0.0.json; decision 2 of the registry")
    written = (three_runs / "reports/certificates/v1.0.0.json").read_bytes()
    certificate = Certificate.model_validate_json(written)
    paths = {output.path for stage in certificate.stages for output in stage.outputs}
    assert paths == {path for stage in STAGES.values() for path in outputs(stage)}
    book = ledger.load(three_runs)
    assert book.read("versions/v1.0.0/certificates/0001.json") == written
    decision = book.decisions[-1]
    assert (decision.action, decision.version, decision.reason) == ("certify", "v1.0.0", certificate.verdict)
    entry = book.entry("v1.0.0")
    assert entry is not None
    rebuilt = {path: sha for stage in certificate.stages for out in stage.outputs for path, sha in out.sha256.items()}
    assert rebuilt.items() <= entry.sha256.items(), "the version's signed digests are those of the rebuild"


def test_other_bytes_end_with_1_and_a_certificate_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path)
    (tmp_path / "project/sub").mkdir()
    monkeypatch.chdir(tmp_path / "project/sub")
    monkeypatch.setenv("RESTLESS", "middle")
    exit_code, lines = pawline_certify("../last.txt")
    assert exit_code == 1
    assert [line.split()[-1] for line in lines[1:-1]] == ["identical", "DIFFERS", "DIFFERS"]
    assert lines[-1].startswith("diverges first in `middle`: middle.txt; the environment differs: python 3.9.1 (now 3.")
    assert lines[-1].endswith("; certificate: reports/certificates/workspace.json")
    document = json.loads((tmp_path / "project/reports/certificates/workspace.json").read_bytes())
    assert (document["identical"], document["first_divergence"]) == (False, "middle")
