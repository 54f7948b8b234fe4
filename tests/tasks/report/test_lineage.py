"""The picture of the graph tells the same as dvc.yaml."""

import json
from pathlib import Path

from ruamel.yaml import YAML

from tasks.report import ReportInputs
from tasks.report.lineage import STAGES, Artifact, is_folder, lineage_facts
from tests.conftest import ROOT


def test_the_stages_are_those_of_dvc_yaml() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert list(STAGES) == list(stages)
    written = {path for stage in STAGES.values() for path in stage.writes}
    for name, stage in stages.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        assert set(STAGES[name].writes) == {next(iter(out)) if isinstance(out, dict) else out for out in outs}, name
        assert set(STAGES[name].reads) == {dep for dep in stage["deps"] if dep in written}, name


def test_everything_that_the_report_reads_has_a_hash() -> None:
    fields = ReportInputs.__dataclass_fields__
    places = ReportInputs(**{name: Path(name) for name in fields}).places()
    assert set(places) == set(STAGES["report"].reads)


def test_only_what_is_read_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text(json.dumps({}))
    facts = lineage_facts({"data/source.json": tmp_path / "source.json"})
    assert facts["artifacts"][:2] == [
        Artifact("source", "data/source.json", "99914b932bd37a50b983c5e7c90ae93b"),
        Artifact("source", "data/weights.json", None),
    ]
    assert facts["box_facts"]["source"] == "99914b9"
    assert facts["box_facts"]["features"] == "not read by this page"
    assert [box.name for box in facts["graph"].boxes] == list(STAGES)
    assert not is_folder(facts["artifacts"][0])
