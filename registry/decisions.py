"""Decisions: each is signed and put on record first, and takes effect by its tag."""

import fcntl
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lineage import git
from lineage.git_objects import GitObjects
from lineage.runs import ARTIFACT, CHAMPION, Project
from lineage.verify_registry import Registry, read_registry
from registry import branch, signing
from registry.ledger import KEYS, Ledger, decision_path, load, signature_path
from registry.records import Action, Decision
from registry.signing import SigningKey
from tasks.stage import PawlineError

LOCK_PATH = Path(".dvc/tmp/pawline-registry.lock")  # beside DVC's own locks, ignored by git

SHOWN_DIGITS = 8  # of a key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is to be decided.

    Attributes:
        action: What.
        version: About which version, if about one.
        commit: The version's commit.
        tag: The git tag that carries it out, or None.
        reason: Why, in the decider's words.
        files: What it adds to the registry besides itself, by path there.
        details: What else the action needs on record.
    """

    action: Action
    version: str | None
    commit: str | None
    tag: str | None
    reason: str
    files: dict[str, bytes] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def deciding(project: Project) -> Iterator[list[Decision]]:
    """Let one decision be made at a time in this checkout, after those that were interrupted take effect.

    Yields:
        The decisions that were finished.

    Raises:
        PawlineError: There is no registry to write to here, something in it does not count, a tag says otherwise than
            it, or an interrupted decision cannot be finished.
    """
    check_place(project)
    with turn(project.root):
        yield _finish(load(project.root))


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """Wait until no decision is being made in this checkout, and keep the next ones waiting until the block ends.

    Raises:
        PawlineError: The lock's file cannot be written.
    """
    path = root / LOCK_PATH
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise PawlineError(f"{error.filename}: {error.strerror}: decisions are made in turn by that file") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another decision is being made: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_place(project: Project) -> None:
    """Make sure that the project can have a registry.

    Raises:
        PawlineError: It is not the root of a git repository with a commit.
    """
    if not project.has_history:
        raise PawlineError(
            "the registry is kept in git, and there is no git repository with a commit here: `git init`, then commit"
        )
    inside = git.git(project.root, "rev-parse", "--show-prefix").decode().strip()
    if inside:
        raise PawlineError(
            f"the project is in {inside} of its git repository, and the registry's tags need it at the root: "
            "give it a repository of its own"
        )


def load_key(book: Ledger) -> SigningKey:
    """Return the user's key, if it counts here: the first to decide needs no admission.

    Args:
        book: The registry as `deciding` left it.

    Raises:
        PawlineError: It does not, or there is none.
    """
    key = signing.load_key()
    if book.keys and key.fingerprint not in book.keys:
        known = " or ".join(f"{name[:SHOWN_DIGITS]}..." for name in book.keys)
        raise PawlineError(
            f"this registry is signed with the key {known}, and yours is {key.fingerprint[:SHOWN_DIGITS]}...: whoever "
            f"has it runs `pawline admit FILE` with your public key, {key.public_path}; {signing.KEY_VARIABLE}=FILE "
            "names another of yours"
        )
    return key


def admit(project: Project, public_pem: bytes, *, reason: str) -> Decision:
    """Let another key sign from the next decision on.

    Args:
        project: The checkout.
        public_pem: The public key, PEM.
        reason: Why, in the decider's words; may be empty.

    Raises:
        PawlineError: It counts already or cannot sign here, or the user's own key does not count.
    """
    pem, fingerprint = signing.parse_public(public_pem)
    with deciding(project):
        book = load(project.root)
        key = load_key(book)
        if fingerprint in (key.fingerprint, *book.keys):
            raise PawlineError(f"the key {fingerprint[:SHOWN_DIGITS]}... counts already: nothing to admit")
        files = {f"{KEYS}{fingerprint}.pem": pem}
        return decide(book, Plan("admit", None, None, None, reason, files, {"key": fingerprint}), key)


def identity(root: Path) -> str:
    """Return who decides, as `Name <address>`, from git's configuration or environment.

    Raises:
        PawlineError: Git does not know.
    """
    try:
        known = git.git(root, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").decode()
    except PawlineError as error:
        raise PawlineError(
            "git does not know who decides: `git config user.name NAME` and `git config user.email ADDRESS`"
        ) from error
    return known[: known.rindex(">") + 1]


def decide(book: Ledger, plan: Plan, key: SigningKey) -> Decision:
    """Put a decision on record, then let it take effect.

    Args:
        book: The registry as `deciding` left it.
        plan: What is decided.
        key: Signs it; `load_key` has it.

    Raises:
        PawlineError: Someone else decided meanwhile, the commit is not here, or git refuses.
    """
    _check_commit(book.root, plan.commit, f"{plan.action} {plan.version}")
    added = dict(plan.files)
    if book.tip is None:
        added["README.md"] = branch.README.encode()
    if key.fingerprint not in book.keys:
        added[f"{KEYS}{key.fingerprint}.pem"] = key.public_pem
    decision = _draft(book, plan, key, added)
    content = decision.model_dump_json(indent=2).encode() + b"\n"
    added[decision_path(decision.number)] = content
    added[signature_path(decision.number)] = sign(content, f"{decision.number:04}.json", key)
    branch.append(book, added, _sentence(decision))
    _take_effect(book.root, decision, hashlib.sha256(content).hexdigest())
    return decision


def _draft(book: Ledger, plan: Plan, key: SigningKey, added: dict[str, bytes]) -> Decision:
    last = book.decisions[-1] if book.decisions else None
    return Decision(
        number=1 if last is None else last.number + 1,
        previous=None if last is None else book.digest(last),
        action=plan.action,
        version=plan.version,
        commit=plan.commit,
        tag=plan.tag,
        by=identity(book.root),
        time=_time_after(last).isoformat(),
        reason=plan.reason,
        key=key.fingerprint,
        files={path: hashlib.sha256(content).hexdigest() for path, content in sorted(added.items())},
        details=plan.details,
    )


def sign(content: bytes, name: str, key: SigningKey) -> bytes:
    """Return the signature of a file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path, signature_path = Path(folder) / name, Path(folder) / "signature"
        path.write_bytes(content)
        signing.sign_file(path, signature_path, key)
        return signature_path.read_bytes()


def _finish(book: Ledger) -> list[Decision]:
    """Let decisions take effect whose tags are missing: interrupted here, or fetched without their tags."""
    unfinished = book.without_effect()
    _check_all_count(book)
    for decision in unfinished:
        _check_commit(book.root, decision.commit, f"decision {decision.number}")
        _take_effect(book.root, decision, book.digest(decision))
        logger.info("finished decision %d, which had no effect yet: %s", decision.number, _sentence(decision))
    return unfinished


def _check_all_count(book: Ledger) -> None:
    """Make sure that nothing is decided on top of what somebody without a key put onto the branch."""
    with GitObjects(book.root) as objects:
        registry = read_registry(book.root, objects)
    broken = [link for link in registry.links if not link.holds and link.kind in ("registry", "decision", "signature")]
    for decision in book.decisions:
        if decision.number not in registry.signed:
            paths = (decision_path(decision.number), signature_path(decision.number))
            why = next(link.detail for link in broken if link.name in paths)
            raise PawlineError(
                f"decision {decision.number} ({_sentence(decision)}) is not signed by a key that counts: `pawline "
                f"verify`; {why}"
            )
    if broken:
        raise PawlineError(f"{broken[0].name} of the registry: {broken[0].detail}: `pawline verify`")
    _check_tags(book, registry)


def _check_tags(book: Ledger, registry: Registry) -> None:
    """Make sure that no tag says otherwise than the decisions: to make or move one takes no key.

    A version that was tagged without Pawline is left alone, a champion is not. Without the branch no tag holds.
    """
    made = {decision.tag for decision in book.decisions}
    for link in registry.links:
        if link.kind != "tag" or (link.status != "tampered" and book.tip is not None):
            continue
        if link.name in made:
            raise PawlineError(
                f"the tag {link.name}: {link.detail}: `git tag --delete {link.name}`, and the next command makes it"
            )
        if link.name.startswith(f"{ARTIFACT}#{CHAMPION}#"):
            instead = "" if book.tip is not None else f", or else `git tag --delete {link.name}`"
            raise PawlineError(f"the tag {link.name}: {link.detail}{instead}")


def _check_commit(root: Path, commit: str | None, what: str) -> None:
    if commit is not None and git.find_commit(root, commit) is None:
        raise PawlineError(
            f"{what} is about the commit {commit[:10]}, which is not here: `git fetch --tags`, in a shallow clone with "
            "--unshallow"
        )


def _take_effect(root: Path, decision: Decision, digest: str) -> None:
    """Make a decision's tag: the same object whoever makes it, because everything in it is from the decision."""
    if decision.tag is None or decision.commit is None:
        return
    seconds = int(datetime.fromisoformat(decision.time).timestamp())
    message = f"{_sentence(decision)}\n\nPawline decision {decision.number}, SHA-256 {digest}"
    branch.tag(root, decision.tag, decision.commit, tagger=f"{decision.by} {seconds} +0000", message=message)


def _time_after(last: Decision | None) -> datetime:
    """Return now, in whole seconds, or the second after the last decision: GTO and DVC order tags by their time."""
    now = datetime.now(UTC).replace(microsecond=0)
    return now if last is None else max(now, datetime.fromisoformat(last.time) + timedelta(seconds=1))


def _sentence(decision: Decision) -> str:
    """Return a decision in one line, for git's messages and the log."""
    words = " ".join(decision.reason.split())
    return " ".join(part for part in (decision.action, decision.version) if part) + (f": {words}" if words else "")
