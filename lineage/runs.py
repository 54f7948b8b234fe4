"""The runs that are known here: the workspace, versions, experiments and commits, and which of them WHAT means."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Literal

from lineage import git, lockfile
from lineage.lockfile import Lock
from lineage.store import Store, file_md5, file_sha256
from tasks.stage import PawlineError

MODEL_PATH = "models/classifier.keras"
ARTIFACT = "classifier"  # its name under `artifacts:` in dvc.yaml, and in the tags of its versions
CHAMPION = "champion"
REGISTRY = "registry"  # the branch of the decisions, which registry/ledger.py reads
VERSION = re.compile(rf"(?:{ARTIFACT}@)?v?(\d+)(?:\.(\d+)\.(\d+))?")
EXPERIMENTS = "refs/exps/"
CONTENT_MD5, SHA256 = re.compile(r"[0-9a-f]{32}(\.dir)?"), re.compile(r"[0-9a-f]{64}")
MD5 = re.compile(rb"\bmd5: ([0-9a-f]{32}(?:\.dir)?)$", re.MULTILINE)  # as dvc.lock has it
HISTORY = ("--branches", "--tags", "--remotes")
THE_REST = "this is a shallow clone: `git fetch --unshallow --tags` for the rest"

Kind = Literal["version", "experiment", "commit", "workspace"]


@dataclass(frozen=True)
class Run:
    """A recorded run of the pipeline.

    Attributes:
        name: How a user would call it.
        kind: What sort of name that is.
        commit: Full id; None for the workspace, whose params.yaml and dvc.lock may not be committed.
        found: The path in that run whose content a given file has, if WHAT was a file.
        given: That file.
    """

    name: str
    kind: Kind
    commit: str | None
    found: str | None = None
    given: Path | None = field(default=None, compare=False)


class Project:
    """A checkout of a project: its files now and at any commit, and the bytes behind its hashes.

    Attributes:
        root: The folder that holds dvc.yaml.
        store: Its bytes by hash.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root)

    @cached_property
    def has_history(self) -> bool:
        """Whether the project is in a git repository with a commit."""
        return git.is_repository(self.root)

    def read(self, run: Run, path: str) -> bytes | None:
        """Return the bytes of a file that git keeps, at a run's commit or in the workspace; None if there is none."""
        if run.commit is not None:
            return git.read_file(self.root, run.commit, path)
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def lock(self, run: Run) -> Lock:
        """Return what a run read and wrote.

        Raises:
            PawlineError: There is no dvc.lock, or it cannot be read.
        """
        content = self.read(run, "dvc.lock")
        if content is None:
            raise PawlineError(f"{run.name} has no dvc.lock: nothing ran there yet; `dvc repro`, then commit dvc.lock")
        return lockfile.parse_lock(content, origin=f"dvc.lock of {run.name}")


WORKSPACE = Run("workspace", "workspace", None)


def find_run(project: Project, what: str | None) -> Run:
    """Return the run that WHAT means, a file's name as seen from the current folder: see `find_from`."""
    return find_from(project, what, Path())


def find_from(project: Project, what: str | None, here: Path) -> Run:
    """Return the run that WHAT means.

    Args:
        project: The checkout.
        what: A version (`v2`, `champion`), a file (found by its content), an experiment, a git revision, or a hash (a
            classifier's SHA-256, or any output's md5 as dvc.lock has it), and the first of these that it can be: `./v2`
            is the file of that name. None is the workspace.
        here: The folder that a file's name is relative to.

    Raises:
        PawlineError: It is none of these; the message says what there is.
    """
    if what in (None, WORKSPACE.name):
        return WORKSPACE
    version = _find_version(project, what) if project.has_history else None
    if version is not None:
        return version
    if is_file(str(here / what)):
        return find_file(project, here / what)
    run = (_find_experiment(project, what) or _find_commit(project, what)) if project.has_history else None
    run = run or _find_hash(project, what)
    if run is None:
        raise PawlineError(f"{what} is no file, version, experiment, git revision or hash; {_what_there_is(project)}")
    return run


def is_file(text: str) -> bool:
    """Say whether a text names a file that is there; one that can be no name, being too long, names none."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def find_file(project: Project, path: Path) -> Run:
    """Return the run that wrote a file of this content, wherever the file lies and whatever its name.

    Versions come first, then the workspace, experiments, and all commits that are known here.

    Raises:
        PawlineError: No run that is known here wrote such a file.
    """
    md5 = file_md5(path)
    run = _find_content(project, md5)
    if run is not None:
        return replace(run, given=path.absolute())
    output = _output_at(project, path)
    if output is not None:
        raise PawlineError(
            f"{path} is not what this project's dvc.lock names: it was changed or damaged since its stage ran "
            f"(its md5 is {md5}, of no run recorded here); get that back with `dvc checkout --force {output}`"
        )
    shallow = project.has_history and git.is_shallow(project.root)
    raise PawlineError(
        f"{path} is unknown: no run recorded here wrote a file of its content (md5 {md5}); "
        + (THE_REST if shallow else "another project's?")
    )


def all_runs(project: Project) -> Iterator[Run]:
    """Yield every run that is known here, each commit once: versions, workspace, experiments, commits."""
    seen: set[str] = set()
    yield from _fresh(versions(project), seen)
    yield WORKSPACE
    yield from _fresh(experiments(project), seen)
    if project.has_history:
        log = git.git(project.root, "log", *HISTORY, "HEAD", "--format=%H", "--", "./dvc.lock").decode().split()
        yield from _fresh((Run(commit[:10], "commit", commit) for commit in log), seen)


def versions(project: Project) -> list[Run]:
    """Return the registered versions, the oldest first."""
    if not project.has_history:
        return []
    names = [tag.partition("@")[2] for tag in git.tags(project.root, f"{ARTIFACT}@v*")]
    names = sorted((name for name in names if VERSION.fullmatch(name)), key=_order)
    commits = {name: git.find_commit(project.root, f"refs/tags/{ARTIFACT}@{name}") for name in names}
    return [Run(name, "version", commit) for name, commit in commits.items() if commit is not None]


def champion(project: Project) -> Run | None:
    """Return the version that the latest `classifier#champion#N` tag makes the champion, or None.

    Raises:
        PawlineError: This is a shallow clone that lacks the registry: the latest tag may be one that was not fetched;
            or a tag is damaged.
    """
    if not project.has_history:
        return None
    if git.is_shallow(project.root) and not _has_registry(project):
        raise PawlineError(f"which version is the champion cannot be said: {THE_REST}")
    _check_tags(project)
    prefix = f"{ARTIFACT}#{CHAMPION}#"
    numbers = [tag.removeprefix(prefix) for tag in git.tags(project.root, f"{prefix}*")]
    latest = max((int(number) for number in numbers if number.isdigit()), default=None)
    if latest is None:
        return None
    commit = git.find_commit(project.root, f"refs/tags/{prefix}{latest}")
    return next((run for run in versions(project) if run.commit == commit), None)


def _check_tags(project: Project) -> None:
    git.check_refs(project.root, f"refs/tags/{ARTIFACT}*")


def _has_registry(project: Project) -> bool:
    refs = (f"refs/heads/{REGISTRY}", f"refs/remotes/*/{REGISTRY}")
    return bool(git.git(project.root, "for-each-ref", "--format=%(refname)", *refs))


def experiments(project: Project) -> list[Run]:
    """Return DVC's experiments."""
    if not project.has_history:
        return []
    form = "%(refname)%1f%(objectname)"
    listed = os.fsdecode(git.git(project.root, "for-each-ref", f"--format={form}", EXPERIMENTS))
    pairs = [line.split("\x1f") for line in listed.split("\n")[:-1]]
    # refs/exps/ab/cdef.../name; DVC keeps its own bookkeeping beside them (exec, queue)
    return [
        Run(ref.split("/")[-1], "experiment", commit)
        for ref, commit in pairs
        if re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[^/]+", ref)
    ]


def _fresh(runs: Iterator[Run] | list[Run], seen: set[str]) -> Iterator[Run]:
    for run in runs:
        if run.commit is not None and run.commit not in seen:
            seen.add(run.commit)
            yield run


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.removeprefix("v").split("."))


def _find_version(project: Project, what: str) -> Run | None:
    if what == CHAMPION:
        run = champion(project)
        if run is None:
            raise PawlineError(f"there is no champion yet: `pawline promote VERSION`; {_what_there_is(project)}")
        return run
    match = VERSION.fullmatch(what)
    if match is None:
        return None
    major, minor, patch = (part or "0" for part in match.groups())
    found = next((run for run in versions(project) if run.name == f"v{major}.{minor}.{patch}"), None)
    if found is None and project.has_history:
        _check_tags(project)
    return found


def _find_experiment(project: Project, what: str) -> Run | None:
    return next((run for run in experiments(project) if run.name == what), None)


def _find_commit(project: Project, what: str) -> Run | None:
    commit = git.find_commit(project.root, what)
    return None if commit is None else Run(what, "commit", commit)


def _find_hash(project: Project, what: str) -> Run | None:
    if CONTENT_MD5.fullmatch(what):
        return _find_content(project, what)
    return _find_classifier(project, what) if SHA256.fullmatch(what) else None


def _find_content(project: Project, md5: str) -> Run | None:
    """Return the first run that wrote a content, with the path it wrote it to."""
    for run in all_runs(project):
        content = project.read(run, "dvc.lock") or b""
        found = _path_of(project, lockfile.parse_lock(content), md5) if _mentions(project, content, md5) else None
        if found is not None:
            return replace(run, found=found)
    return None


def _find_classifier(project: Project, sha256: str) -> Run | None:
    """Return the first run whose classifier, as far as the cache has it, is of that SHA-256."""
    digests: dict[str, str] = {}
    for run in all_runs(project):
        content = project.read(run, "dvc.lock")
        model = None if content is None else lockfile.find_out(lockfile.parse_lock(content), MODEL_PATH)
        if model is not None and project.store.has(model.md5):
            if model.md5 not in digests:
                digests[model.md5] = file_sha256(project.store.object_path(model.md5))
            if digests[model.md5] == sha256:
                return replace(run, found=MODEL_PATH)
    return None


def _what_there_is(project: Project) -> str:
    if not project.has_history:
        return "there is no git repository here, so only the workspace is known"
    known = [run.name for run in [*versions(project), *experiments(project)]]
    shown = [*known[:12], *(["..."] if len(known) > 12 else [])]
    names = f"known here: {', '.join(shown)}" if known else "none is known here"
    return f"{names}; {THE_REST}" if git.is_shallow(project.root) else names


def _mentions(project: Project, lock: bytes, md5: str) -> bool:
    """Say whether a dvc.lock, or a folder it names, mentions a content; parsing it would take 0.2 s a commit."""
    hashes = {found.decode() for found in MD5.findall(lock)}
    lists = [project.store.object_path(found) for found in hashes if found.endswith(lockfile.FOLDER_SUFFIX)]
    return md5 in hashes or any(md5.encode() in path.read_bytes() for path in lists if path.is_file())


def _path_of(project: Project, lock: Lock, md5: str) -> str | None:
    """Return the output, or the file within an output folder, that has a content."""
    outs = [out for stage in lock.values() for out in stage.outs]
    for out in outs:  # first: models/stage1/ holds a copy of the classifier when stage 1 is selected
        if out.md5 == md5:
            return out.path
    for folder in outs:
        inside = _files_here(project, folder) if folder.is_folder else {}
        for relative, content in inside.items():
            if content == md5:
                return f"{folder.path}/{relative}"
    return None


def _output_at(project: Project, path: Path) -> str | None:
    """Return the output of the workspace's dvc.lock that lies where a file does, or that the file is in."""
    content = project.read(WORKSPACE, "dvc.lock")
    relative = PurePath(os.path.relpath(path.absolute(), project.root.absolute())).as_posix()
    outs = [
        out.path for stage in ({} if content is None else lockfile.parse_lock(content)).values() for out in stage.outs
    ]
    return next((out for out in outs if f"{relative}/".startswith(f"{out}/")), None)


def _files_here(project: Project, folder: lockfile.LockedPath) -> dict[str, str]:
    """Return a folder's files if its list is in the cache: a search fetches nothing."""
    path = project.store.object_path(folder.md5)
    return lockfile.parse_folder(path.read_bytes()) if path.is_file() else {}
