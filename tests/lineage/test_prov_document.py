"""The PROV document of a real run: valid, read back by the library, and a path from the classifier to the photos."""

import importlib.resources
import json
from typing import Any

import jsonschema
import pytest
from prov.model import ProvDocument

from lineage.openlineage import run_id
from lineage.prov_document import artifact_name, describe, document, source_name
from lineage.records import Lineage, RunRecord

RAN = RunRecord(
    flow_run_id="5f0c8a1e-3a57-4c0a-9d8e-0c1f6a7b2d11",
    flow_run_name="quick-otter",
    task_run_id="5f0c8a1e-3a57-4c0a-9d8e-0c1f6a7b2d12",
    started="2026-01-02T03:04:05+00:00",
    ended="2026-01-02T03:05:06+00:00",
)


@pytest.fixture
def schema() -> dict[str, Any]:
    """The schema of PROV-JSON, which the library ships with its tests."""
    file = importlib.resources.files("prov") / "tests" / "schemas" / "prov-json.schema.json"
    if not file.is_file():
        pytest.skip("this release of prov ships no schema of PROV-JSON")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def back(content: dict[str, Any], name: str) -> set[str]:
    """Return everything that an entity comes from: by what made it and what that used, and by derivation."""
    made = {entry["prov:entity"]: entry["prov:activity"] for entry in content["wasGeneratedBy"].values()}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        entity = waiting.pop()
        used = {e["prov:entity"] for e in content["used"].values() if e["prov:activity"] == made.get(entity)}
        waiting += sorted(used - found)
        found |= used
    return found


def derived(content: dict[str, Any], name: str) -> set[str]:
    pairs = [(entry["prov:generatedEntity"], entry["prov:usedEntity"]) for entry in content["wasDerivedFrom"].values()]
    found: set[str] = set()
    waiting = [name]
    while waiting:
        entity = waiting.pop()
        waiting += [used for generated, used in pairs if generated == entity and used not in found]
        found |= {used for generated, used in pairs if generated == entity}
    return found


def test_it_is_valid_and_the_library_reads_the_same_document(lineage: Lineage, schema: dict[str, Any]) -> None:
    stages = [each.model_copy(update={"run": RAN}) if each.name == "features" else each for each in lineage.stages]
    for known in (lineage, lineage.model_copy(update={"stages": stages})):
        content = document(known)
        jsonschema.Draft4Validator(schema).validate(content)
        assert ProvDocument.deserialize(content=json.dumps(content), format="json") == describe(known)
        assert document(known) == content


def test_the_classifier_comes_from_the_photos_and_the_weights(lineage: Lineage) -> None:
    content = document(lineage)
    model = artifact_name(lineage.model)
    assert lineage.weights is not None
    wanted = {source_name(lineage), f"weights:{lineage.weights['sha256']}"}
    assert wanted <= back(content, model)
    assert wanted <= derived(content, model)
    code = {artifact_name(artifact) for artifact in lineage.stage("fine_tune").code}
    assert code <= back(content, model)
    report = artifact_name(lineage.stage("report").outputs[0])
    assert report not in back(content, model) | derived(content, model)
    assert back(content, model) | {model} <= content["entity"].keys()


def test_the_note_of_the_weights_is_not_derived_from_the_photos(lineage: Lineage) -> None:
    note = next(artifact for artifact in lineage.stage("source").outputs if artifact.path == "data/weights.json")
    assert source_name(lineage) not in derived(document(lineage), artifact_name(note))


def test_stages_are_activities_with_their_parameters_and_the_commit_as_plan(lineage: Lineage) -> None:
    content = document(lineage)
    assert lineage.commit is not None
    assert {activity["prov:label"] for activity in content["activity"].values()} == {s.name for s in lineage.stages}
    activity = f"run:{run_id(lineage, lineage.stage('features'))}"
    assert content["activity"][activity]["param:features.views"] == {"$": "1", "type": "xsd:long"}
    assert content["activity"][activity]["param:features.augment.flip"] is True
    (association,) = [e for e in content["wasAssociatedWith"].values() if e["prov:activity"] == activity]
    assert association["prov:plan"] == f"commit:{lineage.commit.id}"
    author = [name for name, agent in content["agent"].items() if agent["prov:label"] == lineage.commit.author]
    attributed = {entry["prov:entity"]: entry["prov:agent"] for entry in content["wasAttributedTo"].values()}
    assert [attributed[artifact_name(lineage.model)]] == author


def test_a_prefect_run_has_its_times_and_its_agent(lineage: Lineage) -> None:
    stages = [each.model_copy(update={"run": RAN}) if each.name == "features" else each for each in lineage.stages]
    content = document(lineage.model_copy(update={"stages": stages}))
    activity = content["activity"][f"run:{RAN.task_run_id}"]
    assert (activity["prov:startTime"], activity["prov:endTime"]) == (RAN.started, RAN.ended)
    by_prefect = [e for e in content["wasAssociatedWith"].values() if e["prov:agent"] == "agent:prefect"]
    assert [entry["pawline:flow_run_name"] for entry in by_prefect] == [RAN.flow_run_name]
    assert "agent:prefect" not in document(lineage)["agent"]


def test_uncommitted_work_has_no_plan_and_nobody_it_is_attributed_to(lineage: Lineage, schema: dict[str, Any]) -> None:
    content = document(lineage.model_copy(update={"uncommitted": ["params.yaml"]}))
    jsonschema.Draft4Validator(schema).validate(content)
    assert "wasAttributedTo" not in content
    assert all("prov:plan" not in entry for entry in content["wasAssociatedWith"].values())
