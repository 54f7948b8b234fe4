"""Is every byte of a run the one on record? Everything is hashed again: nothing is believed, git and DVC included."""

from pathlib import Path

from lineage import git
from lineage.git_objects import CommitFiles, GitObjects, project_prefix
from lineage.hashing import Hasher
from lineage.kept import Kept
from lineage.links import Link, Status
from lineage.lockfile import Lock
from lineage.runs import MODEL_PATH, Project, Run
from lineage.verify_entry import verify_files_of_entry, verify_key, verify_lineage, verify_model
from lineage.verify_facts import verify_facts
from lineage.verify_files import Outputs
from lineage.verify_graph import LOCK, kept_paths, read_lock, verify_chain, verify_code, verify_graph
from lineage.verify_registry import Registry, read_entry, read_registry
from registry.records import Decision, Entry
from tasks.stage import PawlineError

NO_GIT = "there is no git repository with a commit here to compare with: `git init`, and commit the project"


def verify(project: Project, run: Run, *, progress: bool = False, registry_key: Path | None = None) -> list[Link]:
    """Recompute every hash of a run from the bytes.

    Args:
        project: The checkout.
        run: The run.
        progress: Whether to show progress on the terminal.
        registry_key: A public key (PEM) got elsewhere, which must have signed the registry's first decision.

    Returns:
        Every link of the proof; it stands if they all hold.

    Raises:
        PawlineError: There is no dvc.lock, or a file cannot be read.
    """
    with GitObjects(project.root) as objects:
        files = _commit_files(project, run, objects)
        kept = Kept(project.root, files, workspace=run.commit is None)
        lock, links = read_lock(kept, run.name)
        registry = read_registry(project.root, objects) if files is not None else Registry()
        if lock is None:
            return _git_links(kept, {}) + links + registry.links
        registered = _registration(registry, kept)
        links += verify_graph(kept, lock) + verify_code(kept, lock) + verify_chain(lock)
        hasher = Hasher(sha256=True, progress=progress)  # two files may have one md5
        outputs = Outputs(project, run, lock, hasher, registry.forgotten)
        links += outputs.verify()
        links += verify_facts(kept, outputs.copies)
        _verify_registration(registry, registered, run)
        entry = None if registered is None else _verify_version(registry, registered, project, kept, outputs)
        if registry_key is not None:
            _verify_key(registry, registered, run, registry_key)
        return _given(run, outputs, entry, hasher) + _git_links(kept, lock) + links + registry.links


def _commit_files(project: Project, run: Run, objects: GitObjects) -> CommitFiles | None:
    if not project.has_history:
        return None
    commit = run.commit or git.git(project.root, "rev-parse", "HEAD").decode().strip()
    return CommitFiles(objects, commit, project_prefix(project.root))


def _registration(registry: Registry, kept: Kept) -> Decision | None:
    """Return the decision that registered the run; the workspace is that run while its dvc.lock is the commit's."""
    if kept.commit is None or len(kept.contents(LOCK)) != 1:
        return None
    return registry.registration(kept.commit.commit)


def _verify_registration(registry: Registry, decision: Decision | None, run: Run) -> None:
    """Note a version that is none: its tag leads to a commit that was not registered as it."""
    if run.kind == "version" and (decision is None or decision.version != run.name):
        wrong = f"no decision registered commit {run.commit} as {run.name}"
        status: Status = "tampered" if registry.files else "missing"  # without a registry, the tag's link says more
        registry.add("entry", run.name, wrong, status=status)


def _verify_version(
    registry: Registry, decision: Decision, project: Project, kept: Kept, outputs: Outputs
) -> Entry | None:
    """Compare a run with its entry, and return that if it can be read."""
    entry = read_entry(registry, decision)
    if entry is not None:
        verify_files_of_entry(registry, entry, kept, outputs.lock, outputs.digests)
        if outputs.is_whole:
            verify_lineage(registry, entry, project)
    if MODEL_PATH in outputs.copies:
        verify_model(registry, decision, outputs.copies[MODEL_PATH])
    return entry


def _verify_key(registry: Registry, decision: Decision | None, run: Run, key: Path) -> None:
    if decision is None:
        raise PawlineError(f"--registry-key: {run.name} is no registered version; `pawline models` lists them")
    verify_key(registry, key)


def _git_links(kept: Kept, lock: Lock) -> list[Link]:
    """Return the links of all git objects that hold the run's files, and of files that differ from them."""
    if kept.commit is None:
        return [Link(kind="git", name="git", status="missing", detail=NO_GIT)]
    for path in kept_paths(lock):
        kept.states(path)
    uncommitted = kept.uncommitted(kept_paths(lock))
    return kept.commit.links + uncommitted


def _given(run: Run, outputs: Outputs, entry: Entry | None, hasher: Hasher) -> list[Link]:
    """Return the link of the file that was given, which was found by its md5: another file may have that, too."""
    if run.found is None or run.given is None:
        return []
    before, digest = hasher.bytes_read, hasher.digest(run.given)
    recorded = None if entry is None else entry.sha256.get(run.found)
    known = {recorded} if recorded else {one.sha256 for one in outputs.digests.get(run.found, {}).values()}
    status: Status = "verified"
    detail = f"the file given is this one, of {run.name}"
    if digest is None or known - {digest.sha256}:
        status, detail = "tampered", f"the file given has the md5 of this one, of {run.name}, and not its SHA-256"
    elif not known:
        detail += ", by its md5: nothing here has the SHA-256"
    read = hasher.bytes_read - before
    return [Link(kind="file", name=run.found, status=status, detail=detail, bytes=read)]
