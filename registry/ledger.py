"""Reading the registry: the branch `registry` of the repository, or that of the remote it was cloned from.

The branch holds `decisions/0001.json` and `.sig`, `versions/v1.0.0/` (entry.json, card.md, model.sig) and
`keys/<fingerprint>.pem`. A decision takes effect by its git tag (`classifier@v1.0.0`, `classifier#champion#1`).
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from lineage import git
from registry.records import Decision, Entry
from tasks.stage import PawlineError

BRANCH = "registry"
Parsed = TypeVar("Parsed", Decision, Entry)


@dataclass(frozen=True)
class Ledger:
    """The registry as one commit has it.

    Attributes:
        root: The project's folder.
        tip: The commit at the end of the branch; None if nothing was registered yet.
    """

    root: Path
    tip: str | None = field(default=None)

    def read(self, path: str) -> bytes | None:
        """Return a file of the registry, or None."""
        if self.tip is None:
            return None
        listed = git.git(self.root, "ls-tree", "-z", "--full-tree", self.tip, "--", path)
        return git.git(self.root, "cat-file", "blob", f"{self.tip}:{path}") if listed else None

    @cached_property
    def files(self) -> list[str]:
        """Every file of the registry."""
        if self.tip is None:
            return []
        listed = git.git(self.root, "ls-tree", "-r", "-z", "--full-tree", "--name-only", self.tip)
        return [name.decode() for name in listed.split(b"\0") if name]

    @cached_property
    def decisions(self) -> list[Decision]:
        """The decisions, the first one first.

        Raises:
            PawlineError: One is missing or is not what Pawline writes.
        """
        names = sorted(name for name in self.files if name.startswith("decisions/") and name.endswith(".json"))
        decisions = [self._parse(Decision, name) for name in names]
        if [decision.number for decision in decisions] != list(range(1, len(names) + 1)):
            raise PawlineError("tampered: the registry's decisions are not numbered 1, 2, ...; `pawline verify`")
        return decisions

    def entry(self, version: str) -> Entry | None:
        """Return a version's entry, or None."""
        path = f"versions/{version}/entry.json"
        return self._parse(Entry, path) if path in self.files else None

    def pending(self) -> Decision | None:
        """Return the last decision if its tag is not there: it was interrupted and has no effect yet."""
        last = self.decisions[-1] if self.decisions else None
        if last is None or last.tag is None or git.find_commit(self.root, f"refs/tags/{last.tag}") is not None:
            return None
        return last

    def _parse(self, model: type[Parsed], path: str) -> Parsed:
        try:
            return model.model_validate_json(self.read(path) or b"")
        except ValidationError as error:
            raise PawlineError(
                f"tampered: {path} of the registry is not what Pawline writes; `pawline verify`"
            ) from error


def load(root: Path) -> Ledger:
    """Return the registry: the local branch, or the remote's where that one is ahead or alone.

    Raises:
        PawlineError: Both have decisions the other lacks.
    """
    local = git.find_commit(root, f"refs/heads/{BRANCH}")
    remote = _remote_tip(root)
    if local is None or remote is None or local == remote:
        return Ledger(root, local or remote)
    if _is_ancestor(root, local, remote):
        return Ledger(root, remote)
    if _is_ancestor(root, remote, local):
        return Ledger(root, local)
    raise PawlineError(
        f"the branch {BRANCH} here and at the remote went apart: keep one of them "
        f"(`git fetch`, then `git branch --force {BRANCH} origin/{BRANCH}` gives up the decisions made here)"
    )


def _remote_tip(root: Path) -> str | None:
    refs = git.git(root, "for-each-ref", "--format=%(refname)", f"refs/remotes/*/{BRANCH}").decode().split()
    origin = f"refs/remotes/origin/{BRANCH}"
    ref = origin if origin in refs else next(iter(refs), None)
    return None if ref is None else git.find_commit(root, ref)


def _is_ancestor(root: Path, older: str, newer: str) -> bool:
    return git.git(root, "merge-base", older, newer).decode().strip() == older
