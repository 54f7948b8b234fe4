"""The README's commands, settings and picture of the graph are true."""

import itertools
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.params import check_params
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
yaml = YAML(typ="safe", pure=True)

RUN_BY = {  # where each command of the README is really run
    "make repro": ".ci/run",
    "make test": ".ci/run",
    "source .venv/bin/activate": "tests/test_pipeline.py",
    "dvc repro": "tests/test_pipeline.py",
    "dvc metrics show": "tests/test_pipeline.py",
    "pawline run": "tests/test_pipeline.py",
    "pawline presets": "tests/test_pipeline.py",
    "pawline run --preset quick --set data.path=../photos": "tests/test_real_photos.py",
    "dvc exp show": "tests/test_real_photos.py",
    "pawline sweep train_head.learning_rate=1e-4,1e-3 train_head.dropout=0,0.2": "tests/test_pipeline.py",
    "python -m tasks.validate --help": "tests/test_pipeline.py",
    "make bench": ".ci/run",
    "pawline register": "tests/test_audit.py",
    'pawline promote v1 --reason "first model on real photos"': "tests/test_audit.py",
    "pawline models": "tests/test_audit.py",
    "pawline card v1": "tests/test_audit.py",
    "pawline rollback": "tests/test_audit.py",
    "pawline lineage models/classifier.keras": "tests/test_audit.py",
    "pawline lineage v1 --html lineage.html": "tests/test_audit.py",
    "pawline lineage v1 v2": "tests/test_audit.py",
    "pawline verify v1": "tests/test_audit.py",
    "pawline why": "tests/test_audit.py",
    "pawline why train_head": "tests/test_audit.py",
    "pawline gc": "tests/test_audit.py",
    "pawline remote add s3://my-bucket/pawline": "tests/test_remote_storage.py",
    "pawline push": "tests/test_remote_storage.py",
    "pawline retrain": "tests/test_retraining.py",
    "pawline ui": "tests/test_retraining.py",
    "pawline worker": "tests/test_retraining.py",
    'pawline schedule --cron "0 3 * * *" --timezone Europe/Berlin': "tests/flows/commands/test_schedule.py",
    "pawline report": "tests/flows/commands/test_report.py",
    "pawline predict ../photos": "tests/test_real_photos.py",
    "pawline predict ../photos --unsure-below 0.9 --csv answers.csv": "tests/test_real_photos.py",
    "pawline serve": "tests/flows/commands/test_serve.py",
    "pawline certify v1": "tests/flows/commands/test_certify.py",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_command_is_run_somewhere() -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert set(commands) == set(RUN_BY)
    for command in (command for command, where in RUN_BY.items() if where == ".ci/run"):
        assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_pictures_and_links_are_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert "docs/report.png" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("fragment", blocks("yaml"))
def test_settings_are_valid(fragment: str, tmp_path: Path) -> None:
    params = yaml.load(ROOT / "params.yaml")
    for section, values in yaml.load(fragment).items():
        params[section] |= values
    yaml.dump(params, tmp_path / "params.yaml")
    check_params(tmp_path / "params.yaml")


def test_the_graph_is_the_one_of_dvc_yaml() -> None:
    drawn = set()
    for line in blocks("mermaid")[0].splitlines()[1:]:
        names = [name.strip() for name in line.split("-->")]
        drawn |= set(itertools.pairwise(names))
    stages = yaml.load(ROOT / "dvc.yaml")["stages"]
    made_by = {
        next(iter(out)) if isinstance(out, dict) else out: name
        for name, stage in stages.items()
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]
    }
    edges = {(made_by[dep], name) for name, stage in stages.items() for dep in stage["deps"] if dep in made_by}
    assert drawn == edges
