"""The registry: its decisions, chained and signed, the files they name by SHA-256, and the tags that carry them out."""

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from lineage import git
from lineage.git_objects import CommitFiles, GitObjects, ObjectError
from lineage.links import Kind, Link, Status
from lineage.runs import ARTIFACT, Project
from registry import ledger, signing
from registry.ledger import BRANCH, DECISIONS, KEYS, VERSIONS, decision_number, decision_path, shown, signature_path
from registry.records import Decision, Entry
from tasks.stage import PawlineError

NO_BRANCH = f"no branch `{BRANCH}` says who registered it: `git fetch origin {BRANCH}:{BRANCH}`"
UNDECIDED = "no decision known here made it: `git fetch` if somebody decided since, or else `git tag --delete {}`"
NO_EFFECT = "not there: `git fetch --tags`; if the decision was interrupted, `pawline promote` finishes it"


@dataclass
class Registry:
    """The registry as the branch has it, verified.

    Attributes:
        files: Every file of the branch that git could give, by path.
        decisions: Those that can be read, by number.
        keys: The fingerprints of the keys that count: that of decision 1, and those that a decision with a key that
            counted before it added.
        signed: The numbers of those that count: in the chain, and signed with a key that counted by then.
        links: What was found.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    signed: set[int] = field(default_factory=set)
    links: list[Link] = field(default_factory=list)

    @property
    def root(self) -> str | None:
        """The fingerprint of the key that signed decision 1, on which all others depend; None if nothing counts."""
        return self.decisions[1].key if 1 in self.signed else None

    @property
    def forgotten(self) -> dict[str, str]:
        """The md5s that signed decisions deleted, with the decision's name."""
        signed = [decision for number, decision in self.decisions.items() if number in self.signed]
        forgets = [decision for decision in signed if decision.action == "forget"]
        return {md5: f"decision {one.number}" for one in forgets for md5 in one.details.get("objects", [])}

    def registration(self, commit: str | None) -> Decision | None:
        """Return the decision that made a commit a version, one that counts if there is one, or None."""
        made = [one for one in self.decisions.values() if one.action == "register" and one.commit == commit]
        return max(made, key=lambda one: (one.number in self.signed, one.number), default=None)

    def key_path(self, decision: Decision) -> str:
        """Return where the registry has the public key that signed a decision."""
        return f"{KEYS}{decision.key}.pem"

    def add(self, kind: Kind, name: str, wrong: str = "", *, status: Status = "tampered", size: int = 0) -> None:
        """Note a link: verified if nothing is wrong."""
        self.links.append(Link(kind=kind, name=name, status=status if wrong else "verified", detail=wrong, bytes=size))


def read_registry(root: Path, objects: GitObjects) -> Registry:
    """Read the branch `registry` and verify all of it; empty if there is no registry."""
    registry = Registry()
    tags = _tags(root)
    tip = _tip(root, registry)
    if tip is None:
        for tag in tags:
            registry.add("tag", tag, NO_BRANCH, status="missing")
        return registry
    branch = CommitFiles(objects, tip)
    contents = {path: branch.read(path) for path in branch.list(".")}
    registry.files = {path: content for path, content in contents.items() if content is not None}
    registry.links += [
        link.model_copy(update={"kind": "registry", "name": f"{BRANCH}:{shown(link.name)}"}) for link in branch.links
    ]
    _verify_decisions(registry)
    _verify_named(registry)
    _verify_tags(registry, objects, tags)
    return registry


def forgotten_objects(project: Project) -> dict[str, str]:
    """Return the md5s that signed decisions deleted, with the decision's name: nothing may bring them back."""
    if not project.has_history:
        return {}
    with GitObjects(project.root) as objects:
        return read_registry(project.root, objects).forgotten


def _tip(root: Path, registry: Registry) -> str | None:
    """Return the branch's last commit, of a branch that git cannot read as well."""
    form = "--format=%(objectname)"
    refs = git.git(root, "for-each-ref", form, f"refs/heads/{BRANCH}", f"refs/remotes/*/{BRANCH}").decode().split()
    try:
        return ledger.load(root).tip or next(iter(refs), None)
    except PawlineError as error:
        registry.add("registry", BRANCH, str(error))
        return next(iter(refs), None)


def _verify_decisions(registry: Registry) -> None:
    """Verify number, chain and signature of each decision, and so which keys count for those after it."""
    numbers = sorted({number for path in registry.files if (number := decision_number(path)) is not None})
    if numbers != list(range(1, len(numbers) + 1)):
        registry.add("registry", DECISIONS, f"the decisions are not numbered 1, 2, ...: {numbers}")
    previous: str | None = None
    for number in numbers:
        path = decision_path(number)
        content = registry.files.get(path, b"")
        wrong = _read_decision(registry, number, content, previous)
        registry.add("decision", path, wrong, size=len(content))
        previous = hashlib.sha256(content).hexdigest()
        if number in registry.decisions:
            unsigned = _check_signature(registry, number, content)
            registry.add("signature", signature_path(number), unsigned)
            if not wrong and not unsigned:
                _count(registry, number)


def _count(registry: Registry, number: int) -> None:
    """Let a decision count, and from the next one on the keys that it added."""
    decision = registry.decisions[number]
    registry.signed.add(number)
    registry.keys |= {decision.key} | {
        path.removeprefix(KEYS).removesuffix(".pem") for path in decision.files if path.startswith(KEYS)
    }


def _read_decision(registry: Registry, number: int, content: bytes, previous: str | None) -> str:
    """Parse a decision and return what is wrong with its place in the chain."""
    try:
        decision = Decision.model_validate_json(content)
    except ValidationError as error:
        return f"not what Pawline writes: {error.errors()[0]['msg']}"
    if decision.number != number:
        return f"it calls itself decision {decision.number}"
    registry.decisions[number] = decision
    if decision.previous != previous:
        return f"decision {number - 1} is not the one that it was made after (its SHA-256 is {previous})"
    return ""


def _check_signature(registry: Registry, number: int, content: bytes) -> str:
    """Return what is wrong with a decision's signature, or nothing; decision 1 says which key counts first."""
    decision = registry.decisions[number]
    signature, key = registry.files.get(signature_path(number)), registry.files.get(registry.key_path(decision))
    wrong = check_signature(content, signature, key, fingerprint=decision.key)
    if not wrong and number > 1 and decision.key not in registry.keys:
        return f"made with the key {decision.key}, which no decision before it admitted that counts"
    return wrong


def check_signature(signed: bytes | Path, signature: bytes | None, key: bytes | None, *, fingerprint: str) -> str:
    """Return what is wrong with a signature, or nothing.

    Args:
        signed: What was signed: the bytes, or the file.
        signature: The signature file's bytes.
        key: The public key, PEM.
        fingerprint: The key that it must be.
    """
    if signature is None or key is None:
        return f"the registry has no {'signature' if signature is None else f'key {fingerprint}'}"
    with tempfile.TemporaryDirectory() as folder:
        signature_path, key_path, file = (Path(folder) / name for name in ("signature", "key.pem", "signed"))
        signature_path.write_bytes(signature)
        key_path.write_bytes(key)
        if isinstance(signed, bytes):
            file.write_bytes(signed)
        try:
            if signing.fingerprint(key) != fingerprint:
                return f"the key called {fingerprint} is another one"
            signing.verify_file(signed if isinstance(signed, Path) else file, signature_path, key_path)
        except PawlineError:
            return f"not made for these bytes with the key {fingerprint}"
    return ""


def _verify_named(registry: Registry) -> None:
    """Compare each file of the branch with the SHA-256 in the decision that added it."""
    named: dict[str, str] = {}
    for number in sorted(registry.decisions):
        named = registry.decisions[number].files | named  # files are never changed: the first to name one is right
    decisions = {path(number) for number in registry.decisions for path in (decision_path, signature_path)}
    for path in sorted((registry.files.keys() | named.keys()) - decisions):
        content = registry.files.get(path)
        if decision_number(path) is not None and path.endswith(".json"):
            continue  # it has a link that says why it cannot be read
        if content is None:
            registry.add("registry", path, "a decision added it, and it cannot be read from the branch")
        elif path not in named or path.startswith(DECISIONS):
            registry.add("registry", shown(path), "no decision added it")
        else:
            same = hashlib.sha256(content).hexdigest() == named[path]
            registry.add("registry", path, "" if same else "not the bytes that a decision added", size=len(content))


def _tags(root: Path) -> dict[str, str]:
    """Return the classifier's tags with the ids of their objects, which are not read here."""
    listed = git.git(root, "for-each-ref", "--format=%(refname) %(objectname)", f"refs/tags/{ARTIFACT}*")
    pairs = (line.rsplit(" ", 1) for line in os.fsdecode(listed).split("\n")[:-1])
    tags = {ref.removeprefix("refs/tags/"): object_id for ref, object_id in pairs}
    return {tag: object_id for tag, object_id in tags.items() if tag.removeprefix(ARTIFACT)[:1] in ("@", "#")}


def _verify_tags(registry: Registry, objects: GitObjects, tags: dict[str, str]) -> None:
    """Compare each tag with the decision that made it: one that counts, if several claim it."""
    claims = sorted(registry.decisions.values(), key=lambda one: one.number in registry.signed)
    made = {one.tag: one for one in claims if one.tag is not None}
    for tag in sorted(made.keys() | tags.keys()):
        if tag not in made:
            registry.add("tag", tag, UNDECIDED.format(tag))
        elif tag not in tags:
            registry.add("tag", tag, NO_EFFECT, status="missing")
        else:
            _verify_tag(registry, objects, tags[tag], made[tag])


def _verify_tag(registry: Registry, objects: GitObjects, object_id: str, decision: Decision) -> None:
    """Compare a tag's object with the decision that made it; the commit it points to must be there, too."""
    name = decision.tag or ""
    try:
        tag = objects.read(object_id)
        objects.read(decision.commit or "")
    except ObjectError as error:
        registry.add("tag", name, f"{error}: `git fetch --tags` (a shallow clone: --unshallow)", status=error.status)
        return
    wrong = ""
    digest = hashlib.sha256(registry.files.get(decision_path(decision.number), b"")).hexdigest()
    if decision.number not in registry.signed:
        wrong = f"made by decision {decision.number}, which does not count"
    elif tag.kind != "tag" or not tag.content.startswith(_tag_header(decision)):
        wrong = f"not the tag that decision {decision.number} made, which points to {decision.commit}"
    elif digest.encode() not in tag.content:
        wrong = f"made by another decision {decision.number} than the branch has"
    registry.add("tag", name, wrong, size=len(tag.content))


def _tag_header(decision: Decision) -> bytes:
    """Return how a tag's object begins, its time included: GTO and DVC order tags by it."""
    try:
        seconds = int(datetime.fromisoformat(decision.time).timestamp())
    except ValueError:
        seconds = 0
    target = f"object {decision.commit}\ntype commit\ntag {decision.tag}"
    return f"{target}\ntagger {decision.by} {seconds} +0000\n".encode()


def read_entry(registry: Registry, decision: Decision) -> Entry | None:
    """Return a version's entry, after noting whether it is about that version."""
    path = f"{VERSIONS}{decision.version}/entry.json"
    try:
        entry = Entry.model_validate_json(registry.files.get(path, b""))
    except ValidationError as error:
        registry.add("entry", path, f"not what Pawline writes: {error.errors()[0]['msg']}")
        return None
    same = (entry.version, entry.commit) == (decision.version, decision.commit)
    registry.add("entry", path, "" if same else f"it is about {entry.version} of commit {entry.commit}")
    return entry
