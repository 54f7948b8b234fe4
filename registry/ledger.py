"""Reading the registry: the branch `registry` of the repository, or that of the remote it was cloned from.

The branch holds `decisions/0001.json` and `.sig`, `versions/v1.0.0/` (entry.json, card.md, model.sig) and
`keys/<fingerprint>.pem`. A decision takes effect by its git tag (`classifier@v1.0.0`, `classifier#champion#1`).
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from lineage import git
from lineage.runs import ARTIFACT, REGISTRY
from registry.records import Decision, Entry
from tasks.stage import PawlineError

BRANCH = REGISTRY
DECISIONS, VERSIONS, KEYS = "decisions/", "versions/", "keys/"
DECISION_FILE = re.compile(rf"{DECISIONS}([0-9]{{4,18}})\.(json|sig)")
Parsed = TypeVar("Parsed", Decision, Entry)


@dataclass(frozen=True)
class Ledger:
    """The registry as one commit has it.

    Attributes:
        root: The project's folder.
        tip: The commit at the end of the branch; None if nothing was registered yet.
        local: Where the local branch was when this was read: behind the tip, or None, if the remote's is ahead.
    """

    root: Path
    tip: str | None = None
    local: str | None = None

    def read(self, path: str) -> bytes | None:
        """Return a file of the registry, or None."""
        return self._contents([path])[path] if path in self.objects else None

    @cached_property
    def objects(self) -> dict[str, str]:
        """Every file of the registry, by its path: mode, type and id, as `git ls-tree` and `git mktree` have them."""
        if self.tip is None:
            return {}
        listed = git.git(self.root, "ls-tree", "-r", "-z", "--full-tree", self.tip)
        names = listed.decode(errors="surrogateescape")  # git takes names that are no UTF-8
        pairs = (line.split("\t", 1) for line in names.split("\0") if line)
        return {path: described for described, path in pairs}

    @property
    def files(self) -> list[str]:
        """The path of every file of the registry."""
        return list(self.objects)

    @cached_property
    def decisions(self) -> list[Decision]:
        """The decisions, the first one first.

        Raises:
            PawlineError: One is missing or is not what Pawline writes.
        """
        names = [name for name in self.files if name.startswith(DECISIONS)]
        strange = next((name for name in names if decision_number(name) is None), None)
        if strange is not None:
            raise PawlineError(f"tampered: {shown(strange)} of the registry is no decision's file; `pawline verify`")
        count = sum(name.endswith(".json") for name in names)
        paths = [decision_path(number) for number in range(1, count + 1)]
        if not set(paths) <= set(names):
            raise PawlineError("tampered: the registry's decisions are not numbered 1, 2, ...; `pawline verify`")
        contents = self._contents(paths)
        decisions = [_parse(Decision, name, content) for name, content in contents.items()]
        for number, decision in enumerate(decisions, start=1):
            if decision.number != number:
                raise PawlineError(
                    f"tampered: {decision_path(number)} of the registry calls itself decision {decision.number}; "
                    "`pawline verify`"
                )
        return decisions

    def digest(self, decision: Decision) -> str:
        """Return the SHA-256 of a decision's file, in hex."""
        return hashlib.sha256(self.read(decision_path(decision.number)) or b"").hexdigest()

    @property
    def keys(self) -> list[str]:
        """The fingerprints of the keys that may sign, once it is checked that all decisions count."""
        return [name[len(KEYS) : -len(".pem")] for name in self.files if name.startswith(KEYS)]

    def entry(self, version: str) -> Entry | None:
        """Return a version's entry, or None."""
        path = f"{VERSIONS}{version}/entry.json"
        return _parse(Entry, path, self.read(path) or b"") if path in self.objects else None

    def pending(self) -> Decision | None:
        """Return the last decision if its tag is not there: it was interrupted and has no effect yet."""
        last = self.decisions[-1] if self.decisions else None
        return last if last in self.without_effect() else None

    def without_effect(self) -> list[Decision]:
        """Return the decisions whose tag is not there: interrupted, or fetched without the tags."""
        here = set(git.tags(self.root, f"{ARTIFACT}[@#]*"))
        return [decision for decision in self.decisions if decision.tag is not None and decision.tag not in here]

    def _contents(self, paths: list[str]) -> dict[str, bytes]:
        """Return files by one call of git, however many they are."""
        ids = [self.objects[path].split()[2] for path in paths]
        answer = git.git(self.root, "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in ids).encode())
        contents, position = {}, 0
        for path in paths:
            start = answer.index(b"\n", position) + 1
            header = answer[position:start].split()
            if header[-1] == b"missing":
                raise PawlineError(
                    f"{path} of the registry is not in git's store: `git fetch`, or `git fsck` says more"
                )
            position = start + int(header[2]) + 1
            contents[path] = answer[start : position - 1]
        return contents


def decision_path(number: int) -> str:
    """Return where a decision lies in the registry."""
    return f"{DECISIONS}{number:04}.json"


def signature_path(number: int) -> str:
    """Return where a decision's signature lies in the registry."""
    return f"{DECISIONS}{number:04}.sig"


def decision_number(path: str) -> int | None:
    """Return the decision whose file or signature a path of the registry is; None for any other spelling."""
    match = DECISION_FILE.fullmatch(path)
    number = 0 if match is None else int(match[1])
    return number if number and path in (decision_path(number), signature_path(number)) else None


def shown(path: str) -> str:
    """Return a path as it can be printed, whatever bytes somebody gave it."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def load(root: Path) -> Ledger:
    """Return the registry: the local branch, or the remote's where that one is ahead or alone.

    Raises:
        PawlineError: Both have decisions the other lacks, or one of them or a tag is damaged.
    """
    git.check_refs(root, f"refs/heads/{BRANCH}", f"refs/remotes/*/{BRANCH}", f"refs/tags/{ARTIFACT}*")
    local = git.find_commit(root, f"refs/heads/{BRANCH}")
    remote = _remote_tip(root)
    if local is None or remote is None or local == remote:
        return Ledger(root, local or remote, local)
    if _is_ancestor(root, local, remote):
        return Ledger(root, remote, local)
    if _is_ancestor(root, remote, local):
        return Ledger(root, local, local)
    raise PawlineError(
        f"the branch {BRANCH} here and at the remote went apart: keep one of them; this gives up the decisions made "
        f"here: `git fetch --force --prune origin 'refs/heads/{BRANCH}:refs/heads/{BRANCH}' "
        f"'refs/tags/{ARTIFACT}*:refs/tags/{ARTIFACT}*'`"
    )


def _remote_tip(root: Path) -> str | None:
    refs = git.git(root, "for-each-ref", "--format=%(refname)", f"refs/remotes/*/{BRANCH}").decode().split()
    origin = f"refs/remotes/origin/{BRANCH}"
    ref = origin if origin in refs else next(iter(refs), None)
    return None if ref is None else git.find_commit(root, ref)


def _is_ancestor(root: Path, older: str, newer: str) -> bool:
    return git.git(root, "rev-list", "--max-count=1", older, f"^{newer}") == b""


def _parse(model: type[Parsed], path: str, content: bytes) -> Parsed:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise PawlineError(f"tampered: {path} of the registry is not what Pawline writes; `pawline verify`") from error
