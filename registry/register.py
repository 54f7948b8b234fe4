"""Registering a run as a version: every file of it is hashed, its classifier signed, and both put on record."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lineage import git, lockfile, trace
from lineage.git_objects import CommitFiles, GitObjects
from lineage.hashing import Hasher
from lineage.kept import Kept
from lineage.lockfile import Lock
from lineage.records import Lineage
from lineage.runs import ARTIFACT, MODEL_PATH, VERSION, Project, Run, versions
from lineage.verify_graph import kept_paths, verify_chain, verify_code, verify_graph
from registry.decisions import Plan, decide, deciding, identity, load_key, sign
from registry.ledger import VERSIONS, Ledger, load
from registry.records import Decision, Entry
from registry.signing import SigningKey
from tasks.stage import PawlineError


def register(project: Project, run: Run, *, reason: str) -> Decision:
    """Make a run the next version.

    Args:
        project: The checkout.
        run: The run; the workspace counts as HEAD if everything is committed.
        reason: Why, in the decider's words; may be empty.

    Returns:
        The decision; one that was interrupted before, if that was about this very run.

    Raises:
        PawlineError: The run is not committed, registered already, or not whole; the message says what to do.
    """
    with deciding(project) as finished:
        commit = committed(project, run)
        for decision in finished:
            if decision.action == "register" and decision.commit == commit:
                return decision
        known = find_registered(project, commit)
        if known is not None:
            raise PawlineError(f"{run.name} is registered already: it is the run of {known.name}")
        book = load(project.root)
        identity(project.root)  # what is missing shows before anything is read
        key = load_key(book)
        version = next_version(project, book)
        sha256 = hash_run(project, Run(run.name, run.kind, commit))
        files = _describe(project, Run(version, "version", commit), sha256, key)
        tag = f"{ARTIFACT}@{version}"
        return decide(book, Plan("register", version, commit, tag, reason, files), key)


def find_registered(project: Project, commit: str) -> Run | None:
    """Return the version of a commit, or of an earlier one with the same dvc.lock and so the same run; or None."""
    lock = git.read_file(project.root, commit, "dvc.lock")
    known = versions(project)
    same = [version for version in known if version.commit == commit]
    same += [version for version in known if project.read(version, "dvc.lock") == lock]
    return same[0] if same else None


def committed(project: Project, run: Run) -> str:
    """Return the commit that has a run: of the workspace, HEAD.

    Raises:
        PawlineError: The workspace is not what HEAD has.
    """
    if run.commit is not None:
        return run.commit
    head = git.find_commit(project.root, "HEAD") or ""
    changed = trace.trace(project, run).uncommitted
    if project.read(run, "dvc.lock") != git.read_file(project.root, head, "dvc.lock"):
        changed = sorted({*changed, "dvc.lock"})
    if changed:
        raise PawlineError(
            f"not committed: {', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}: `git add` and `git commit` "
            "first, or keep the run as an experiment (`pawline run --name NAME`) and register that"
        )
    return head


def next_version(project: Project, book: Ledger) -> str:
    """Return the name of the version to come: v1.0.0, v2.0.0, ..."""
    names = [version.name for version in versions(project)]
    names += [path.split("/")[1] for path in book.files if path.startswith(VERSIONS)]
    majors = [int(match.group(1)) for name in names if (match := VERSION.fullmatch(name))]
    return f"v{max(majors, default=0) + 1}.0.0"


def hash_run(project: Project, run: Run) -> dict[str, str]:
    """Read every file of a run and return its SHA-256, by path.

    Outputs come from DVC's cache, or from the workspace if it has the same bytes; the rest from the commit.

    Raises:
        PawlineError: A file is missing, or is not the one that dvc.lock names.
    """
    lock = project.lock(run)
    if lockfile.find_out(lock, MODEL_PATH) is None:
        raise PawlineError(f"{run.name} has no {MODEL_PATH}: its run was not finished; `dvc repro`, then commit")
    kept = _sha256_kept_by_git(project, run.commit or "", lock)
    outputs = dict(_outputs(project, lock))
    hasher = Hasher(sha256=True)
    hasher.add(project.store.object_path(md5) for md5 in outputs.values())
    sha256 = {path: _sha256_of_output(project, hasher, path, md5) for path, md5 in outputs.items()}
    return dict(sorted({**sha256, **kept}.items()))


def _outputs(project: Project, lock: Lock) -> Iterator[tuple[str, str]]:
    """Yield the path and md5 of every file that a run wrote."""
    for out in (out for stage in lock.values() for out in stage.outs):
        if not out.is_folder:
            yield out.path, out.md5
            continue
        files = project.store.list_folder(out)
        if files is None:
            raise PawlineError(_gone(out.path))
        yield from ((f"{out.path}/{name}", md5) for name, md5 in files.items())


def _sha256_of_output(project: Project, hasher: Hasher, path: str, md5: str) -> str:
    cached = project.store.object_path(md5)
    found = hasher.digest(cached)
    if found is not None and found.md5 != md5:
        raise PawlineError(f"tampered: {cached}, which is {path}, does not hold what its name says; `pawline verify`")
    found = found or hasher.digest(project.root / path)
    if found is None or found.md5 != md5 or found.sha256 is None:
        raise PawlineError(_gone(path))
    return found.sha256


def _gone(path: str) -> str:
    return (
        f"{path} of that run is not in DVC's cache: check its commit out and `dvc pull`; if no remote has it, "
        "`dvc repro`, commit, and register that"
    )


def _sha256_kept_by_git(project: Project, commit: str, lock: Lock) -> dict[str, str]:
    """Return the SHA-256 of the code and settings at a commit, which must be those of its dvc.lock."""
    with GitObjects(project.root) as objects:
        kept = Kept(project.root, CommitFiles(objects, commit), workspace=False)
        links = verify_graph(kept, lock) + verify_code(kept, lock) + verify_chain(lock)
        contents = {name: content for path in kept_paths(lock) for name, content in kept.committed(path).items()}
        links += [] if kept.commit is None else kept.commit.links
    wrong = next((link for link in links if not link.holds), None)
    if wrong is not None:
        raise PawlineError(
            f"{commit[:10]} cannot be registered, its {wrong.kind} {wrong.name} is wrong: {wrong.detail}"
        )
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def _describe(project: Project, version: Run, sha256: dict[str, str], key: SigningKey) -> dict[str, bytes]:
    """Return the version's files for the registry: its entry, its card and the classifier's signature."""
    from registry.card import render_card

    lineage = trace.trace(project, version).model_copy(update={"version": version.name})
    entry = Entry(version=version.name, commit=version.commit or "", sha256=sha256, lineage=lineage)
    card = render_card(project, lineage, version.name)
    folder = f"{VERSIONS}{version.name}"
    return {
        f"{folder}/entry.json": entry.model_dump_json(indent=2).encode() + b"\n",
        f"{folder}/card.md": card.encode(),
        f"{folder}/model.sig": _sign_model(project, lineage, sha256[MODEL_PATH], key),
    }


def _sign_model(project: Project, lineage: Lineage, sha256: str, key: SigningKey) -> bytes:
    cached = project.store.object_path(lineage.model.md5)
    content = (cached if cached.is_file() else project.root / MODEL_PATH).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PawlineError(f"{MODEL_PATH} was changed while it was being registered: run it again")
    return sign(content, Path(MODEL_PATH).name, key)
