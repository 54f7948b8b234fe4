"""A version's entry in the registry against the run: SHA-256 of every file, the lineage, the model's signature."""

import hashlib
from pathlib import Path
from typing import Any

from lineage.hashing import Digest
from lineage.kept import Kept
from lineage.lockfile import Lock
from lineage.records import Lineage
from lineage.runs import MODEL_PATH, Project, Run
from lineage.trace import trace
from lineage.verify_graph import kept_paths
from lineage.verify_registry import Registry, check_signature
from registry import signing
from registry.ledger import VERSIONS
from registry.records import Decision, Entry
from tasks.stage import PawlineError

NOT_COMPARED = {"name", "kind", "version", "uncommitted", "missing"}  # of the moment, not of the run


def verify_files_of_entry(
    registry: Registry, entry: Entry, kept: Kept, lock: Lock, digests: dict[str, dict[str, Digest]]
) -> None:
    """Compare the SHA-256 of each of the run's files that is here with the entry's, in every place that has it.

    Args:
        registry: Takes the links.
        entry: The version's.
        kept: The files of its commit.
        lock: Its dvc.lock.
        digests: Of the outputs with the right md5, by place; the others have a link that says why not.
    """
    sha256 = {path: {place: str(one.sha256) for place, one in places.items()} for path, places in digests.items()}
    for path in kept_paths(lock):
        contents = kept.committed(path)
        sha256 |= {name: {"commit": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    for path, places in sorted(sha256.items()):
        registry.add("entry", path, _wrong_file(entry, path, places))


def verify_lineage(registry: Registry, entry: Entry, project: Project) -> None:
    """Compare the entry's lineage with the one that is traced now."""
    path = f"{VERSIONS}{entry.version}/entry.json"
    try:
        now = _comparable(trace(project, Run(entry.version, "version", entry.commit)))
    except PawlineError as error:
        registry.add("entry", f"{path}: lineage", str(error))
        return
    then = _comparable(entry.lineage)
    differ = [key for key in now if now[key] != then[key]]
    registry.add("entry", f"{path}: lineage", f"not what the run's files say: {', '.join(differ)}" if differ else "")


def verify_model(registry: Registry, decision: Decision, classifier: Path) -> None:
    """Check the signature of the classifier's bytes with the key of the decision that registered it."""
    path = f"{VERSIONS}{decision.version}/model.sig"
    key = registry.files.get(registry.key_path(decision))
    wrong = check_signature(classifier, registry.files.get(path), key, fingerprint=decision.key)
    registry.add("signature", f"{path} of {MODEL_PATH}", wrong, size=classifier.stat().st_size)


def verify_key(registry: Registry, key: Path) -> None:
    """Check that a key got elsewhere is the one that signed decision 1, on which all keys that count depend.

    Raises:
        PawlineError: It is no public key.
    """
    try:
        fingerprint = signing.fingerprint(key.read_bytes())
    except OSError as error:
        raise PawlineError(f"{key}: {error.strerror}: --registry-key takes a public key in PEM") from error
    except PawlineError as error:
        raise PawlineError(f"{key} is no public key in PEM: --registry-key takes one") from error
    wrong = "" if fingerprint == registry.root else f"decision 1 is not signed with it, but with {registry.root}"
    registry.add("signature", f"the given key {fingerprint[:12]}", wrong)


def _wrong_file(entry: Entry, path: str, places: dict[str, str]) -> str:
    """Say what is wrong with a file's SHA-256 in the places that have it; nothing if it is the entry's in all."""
    if path not in entry.sha256:
        return f"{entry.version} was registered without it"
    wrong = [f"in the {place} {digest}" for place, digest in places.items() if digest != entry.sha256[path]]
    said = f"{entry.version} was registered with other bytes (SHA-256 {entry.sha256[path]}, {', '.join(wrong)})"
    return said if wrong else ""


def _comparable(lineage: Lineage) -> dict[str, Any]:
    """Return what a lineage says of the run; not which Prefect run ran it, which only its own machine knows."""
    facts = lineage.model_dump(mode="json", exclude=NOT_COMPARED)
    for stage in facts["stages"]:
        del stage["run"]
    return facts
