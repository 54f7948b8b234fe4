"""A run as a W3C PROV document, which provenance stores and viewers read.

PROV-DM (https://www.w3.org/TR/prov-dm/, W3C Recommendation of 2013) written as PROV-JSON (W3C Member Submission of
2013), by the library `prov`. Every name is a URN or another identifier of the content itself, so that two documents
that speak of the same content agree.
"""

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lineage.openlineage import PHOTO_READERS, WEIGHTS_READER, code_commit, run_id, source_version, weights_name
from lineage.records import Artifact, CommitRecord, Lineage, StageRecord

if TYPE_CHECKING:
    from prov.model import ProvDocument

Facts = dict[Any, Any]  # attributes, as the library types them
WEIGHTS_NOTE = "data/weights.json"  # what the stage `source` writes beside its look at the photos
PAWLINE, PREFECT = "agent:pawline", "agent:prefect"
PREFIXES = {
    "pawline": "urn:pawline:prov:",  # kinds and attributes
    "param": "urn:pawline:param:",
    "artifact": "urn:pawline:artifact:",  # path@md5
    "photos": "urn:pawline:photos:",
    "weights": "urn:pawline:weights:",
    "agent": "urn:pawline:agent:",
    "run": "urn:uuid:",
    "commit": "swh:1:rev:",  # software hash identifiers (ISO/IEC 18670) of git commits
}


def document(lineage: Lineage) -> dict[str, Any]:
    """Describe a run as PROV-JSON (W3C Member Submission of 2013).

    The same lineage gives the same document: nothing in it is of the moment it is made.
    """
    content: dict[str, Any] = _with_numbers_as_text(json.loads(describe(lineage).serialize(format="json") or ""))
    return content


def describe(lineage: Lineage) -> "ProvDocument":
    """Describe a run in PROV-DM (W3C Recommendation of 2013): entities, activities and agents.

    Entities are files and folders by content, the photos' source, the backbone's weights and the commit; activities
    are the stages; agents are who committed, Pawline, and Prefect where it ran a stage. What a stage wrote is derived
    from everything it read, because dvc.lock says no more than that.
    """
    from prov.model import ProvDocument

    described = ProvDocument()
    for prefix, uri in PREFIXES.items():
        described.add_namespace(prefix, uri)
    _add_agents(described, lineage)
    _add_artifacts(described, lineage)
    _add_outside(described, lineage)
    for stage in lineage.stages:
        _add_stage(described, lineage, stage)
    return described


def artifact_name(artifact: Artifact) -> str:
    """Return the name of a file or folder in the document: its path and its content."""
    return f"artifact:{artifact.path}@{artifact.md5}"


def source_name(lineage: Lineage) -> str:
    """Return the name of the photos' source in the document."""
    return f"photos:{source_version(lineage)}"


def _add_agents(described: "ProvDocument", lineage: Lineage) -> None:
    software: Facts = {"prov:type": described.valid_qualified_name("prov:SoftwareAgent")}
    described.agent(PAWLINE, {**software, "prov:label": "Pawline"})
    if any(stage.run is not None for stage in lineage.stages):
        described.agent(PREFECT, {**software, "prov:label": "Prefect"})
    if lineage.commit is None:
        return
    committer, commit = _committer(lineage.commit), code_commit(lineage)
    person: Facts = {"prov:type": described.valid_qualified_name("prov:Person")}
    described.agent(committer, {**person, "prov:label": lineage.commit.author, "pawline:email": lineage.commit.email})
    if commit is not None:
        plan: Facts = {"prov:type": described.valid_qualified_name("prov:Plan"), "prov:label": lineage.commit.subject}
        described.entity(f"commit:{commit}", {**plan, "pawline:committed": lineage.commit.time})
        described.wasAttributedTo(f"commit:{commit}", committer)
        described.wasAttributedTo(artifact_name(lineage.model), committer)


def _committer(commit: CommitRecord) -> str:
    return f"agent:{quote(commit.email or commit.author, safe='@')}"


def _add_artifacts(described: "ProvDocument", lineage: Lineage) -> None:
    artifacts = [artifact for stage in lineage.stages for artifact in (*stage.code, *stage.inputs, *stage.outputs)]
    for name, artifact in {artifact_name(artifact): artifact for artifact in artifacts}.items():
        facts: Facts = {"prov:label": artifact.path, "pawline:md5": artifact.md5}
        facts["pawline:bytes"] = _literal(artifact.bytes)
        if artifact.files is not None:
            facts["pawline:files"] = _literal(artifact.files)
        if artifact.path == lineage.model.path:
            facts["prov:type"] = described.valid_qualified_name("pawline:Model")
        described.entity(name, facts)


def _add_outside(described: "ProvDocument", lineage: Lineage) -> None:
    facts = {f"pawline:{key}": _literal(value) for key, value in (lineage.source.fingerprint or {}).items()}
    photos: Facts = {"prov:type": described.valid_qualified_name("pawline:PhotoSource"), **facts}
    described.entity(source_name(lineage), {**photos, "prov:label": f"photos: {lineage.source.params['data.source']}"})
    if lineage.weights is not None:
        facts = {f"pawline:{key}": _literal(value) for key, value in lineage.weights.items()}
        weights: Facts = {"prov:type": described.valid_qualified_name("pawline:Weights"), **facts}
        described.entity(_weights(lineage.weights), {**weights, "prov:label": weights_name(lineage.weights)})


def _weights(weights: dict[str, Any]) -> str:
    return f"weights:{weights.get('sha256') or quote(weights_name(weights))}"


def _add_stage(described: "ProvDocument", lineage: Lineage, stage: StageRecord) -> None:
    activity, commit = f"run:{run_id(lineage, stage)}", code_commit(lineage)
    params = {f"param:{key}": _literal(value) for key, value in stage.params.items()}
    facts: Facts = {"prov:label": stage.name, "pawline:command": stage.command, **params}
    began, ended = (None, None) if stage.run is None else (stage.run.started, stage.run.ended)
    described.activity(activity, began, ended, facts)
    described.wasAssociatedWith(activity, PAWLINE, None if commit is None else f"commit:{commit}")
    if stage.run is not None:
        named: Facts = {"pawline:flow_run": stage.run.flow_run_id, "pawline:flow_run_name": stage.run.flow_run_name}
        described.wasAssociatedWith(activity, PREFECT, other_attributes=named)
    outside, inside = _outside(lineage, stage), [artifact_name(artifact) for artifact in stage.inputs]
    code = [artifact_name(artifact) for artifact in stage.code]
    for role, names in (("input", [*outside, *inside]), ("code", code)):
        used_as: Facts = {"prov:role": role}
        for name in names:
            described.used(activity, name, other_attributes=used_as)
    for artifact in stage.outputs:
        described.wasGeneratedBy(artifact_name(artifact), activity, ended)
        for name in inside if artifact.path == WEIGHTS_NOTE else [*outside, *inside]:
            described.wasDerivedFrom(artifact_name(artifact), name, activity)


def _outside(lineage: Lineage, stage: StageRecord) -> list[str]:
    """Return the names of what a stage read from outside the project."""
    if stage.name in PHOTO_READERS:
        return [source_name(lineage)]
    return [_weights(lineage.weights)] if stage.name == WEIGHTS_READER and lineage.weights is not None else []


def _literal(value: object) -> object:
    """Return a value that PROV-JSON can hold; a list or null is written as JSON."""
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _with_numbers_as_text(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Write the numbers as the schema of PROV-JSON wants them, which the library does not: `{"$": "1", "type": ...}`.

    Whole numbers become `xsd:long`: sizes in bytes exceed `xsd:int`.
    """
    if isinstance(value, dict) and isinstance(value.get("$"), int | float):
        return {"$": str(value["$"]), "type": "xsd:long" if isinstance(value["$"], int) else value["type"]}
    if isinstance(value, dict):
        return {key: _with_numbers_as_text(inner) for key, inner in value.items()}
    return value
