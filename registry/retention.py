"""What DVC's cache must keep, for whom, and what can go: nothing that a version, a branch or the workspace needs."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lineage import git, lockfile, prefect_runs
from lineage.runs import ARTIFACT, THE_REST, Project, experiments
from registry import ledger
from registry.places import (
    CACHE,
    Place,
    Places,
    check_idle,
    drop_run_cache,
    files_within,
    is_shared,
    named_objects,
    run_cache_entries,
    unfinished_objects,
)
from tasks.stage import PawlineError

WORKSPACE = "workspace"
AT_REST_SECONDS = 600.0  # who fetches an object writes to it more often


@dataclass(frozen=True)
class Keeper:
    """What one commit, or the workspace, needs.

    Attributes:
        names: How it is called: versions, branches, tags, experiments that stand on that commit; or `workspace`.
        md5s: The objects it needs, folders and the files in them.
        run_records: Where it is noted which Prefect runs ran its stages, whether any did or not.
    """

    names: tuple[str, ...]
    md5s: frozenset[str]
    run_records: frozenset[Path]


@dataclass(frozen=True)
class Lot:
    """Objects that go, by what they were, such as `data/features of commit 1a2b3c4d5e 'First run'`."""

    what: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What would be kept and what would go.

    Attributes:
        keepers: Who needs something; those that need the same are one.
        here: The needed objects that the cache has, with their bytes.
        free: What nobody needs, by place: object to bytes.
        unfinished: What DVC left in the cache when it was killed, with its bytes.
        run_records: The notes on Prefect runs of stages that nobody keeps.
        drops_experiments: Whether what only experiments need is among it.
    """

    keepers: list[Keeper]
    here: dict[str, int]
    free: dict[str, dict[str, int]]
    unfinished: dict[Path, int]
    run_records: list[Path]
    drops_experiments: bool

    def needs(self, keeper: Keeper) -> tuple[int, int]:
        """Return how many bytes of the cache a keeper needs, and how many of them no other keeper does."""
        needed_by = Counter(md5 for other in self.keepers for md5 in other.md5s)
        sizes = {md5: self.here.get(md5, 0) for md5 in keeper.md5s}
        return sum(sizes.values()), sum(size for md5, size in sizes.items() if needed_by[md5] == 1)


def make_plan(project: Project, places: Places, *, drop_experiments: bool = False, remote: str | None = None) -> Plan:
    """Find out what nobody needs any more.

    Args:
        project: The checkout.
        places: Where objects are.
        drop_experiments: Whether what only experiments need goes.
        remote: A remote to free as well.

    Raises:
        PawlineError: The cache is shared with other projects, the remote cannot be freed, or what is needed cannot be
            told for certain.
    """
    if is_shared(project.store):
        raise PawlineError(
            f"the cache is {project.store.cache_dir}, outside of this project, where other projects may keep objects: "
            "`dvc gc --workspace --all-branches --all-tags --all-experiments --projects OTHER` knows of them"
        )
    if project.has_history and git.is_shallow(project.root) and ledger.load(project.root).tip is None:
        raise PawlineError(f"what is needed cannot be told: {THE_REST}")
    # Git passes over a branch that it cannot read, and what that needs would go.
    git.check_refs(project.root, "refs/heads", "refs/tags", "refs/exps", *(["refs/remotes"] if remote else []))
    freed = [places.cache, *([_find_remote(places, remote)] if remote else [])]
    keepers = find_keepers(project, drop_experiments=drop_experiments, with_remote_branches=remote is not None)
    needed = {md5 for keeper in keepers for md5 in keeper.md5s}
    free = {place.name: place.sizes(place.objects() - needed) for place in freed}
    noted = {path for keeper in keepers for path in keeper.run_records}
    run_records = sorted(prefect_runs.record_paths(project) - noted)
    unfinished = unfinished_objects(project.store, at_rest_seconds=AT_REST_SECONDS)
    return Plan(keepers, places.cache.sizes(needed), free, unfinished, run_records, drop_experiments)


def spare(project: Project, plan: Plan) -> Plan:
    """Return a plan without what somebody needs by now: a version, branch or commit made since it was planned."""
    with_remote_branches = any(name != CACHE for name in plan.free)
    keepers = find_keepers(project, drop_experiments=plan.drops_experiments, with_remote_branches=with_remote_branches)
    needed = {md5 for keeper in keepers for md5 in keeper.md5s}
    noted = {path for keeper in keepers for path in keeper.run_records}
    free = {name: {md5: size for md5, size in sizes.items() if md5 not in needed} for name, sizes in plan.free.items()}
    return replace(plan, free=free, run_records=[path for path in plan.run_records if path not in noted])


def carry_out(project: Project, places: Places, plan: Plan) -> int:
    """Delete what a plan frees; return how many entries of DVC's run cache went with it.

    Interrupted, it leaves what the next plan frees.

    Raises:
        PawlineError: DVC is at work in this project; nothing was deleted.
    """
    check_idle(project.root)
    dropped = drop_run_cache(project.store, set(plan.free[places.cache.name]))
    for place in places.all:
        place.delete(plan.free.get(place.name, {}))
    for path in [*plan.unfinished, *plan.run_records]:
        path.unlink(missing_ok=True)
    return dropped


def find_keepers(project: Project, *, drop_experiments: bool, with_remote_branches: bool) -> list[Keeper]:
    """Return who needs what: the workspace, HEAD, every version, tag and branch, and experiments unless dropped.

    Of an experiment that was dropped before, what is left is kept: a folder whose list of files is gone has gone whole.

    Raises:
        PawlineError: There is no git repository, the registry cannot be read, or a registered commit or the list of a
            folder's files that anything but an experiment needs is nowhere.
    """
    if not project.has_history:
        raise PawlineError("there is no git repository here: `dvc gc --workspace` keeps what the workspace needs")
    expanded: dict[str, list[str]] = {}
    names: dict[frozenset[str], list[str]] = {}
    records: dict[frozenset[str], set[Path]] = {}
    commits = _commits(project, with_remote_branches=with_remote_branches)
    tried: dict[str, list[str]] = {}
    for run in [] if drop_experiments else experiments(project):
        (commits if run.commit in commits else tried).setdefault(str(run.commit), []).append(run.name)
    on_record = [([WORKSPACE], _workspace_files(project)), *_files_of_commits(project, commits)]
    for owners, may_be_gone in ((on_record, False), (_files_of_commits(project, tried), True)):
        for called, contents in owners:
            named = {md5 for name, content in contents for md5 in named_objects(content, origin=name)}
            for md5 in named - expanded.keys():
                expanded[md5] = _files_within(project, md5, called[0], may_be_gone=may_be_gone)
            needs = frozenset(named.union(*(expanded[md5] for md5 in named)))
            names.setdefault(needs, []).extend(called)
            records.setdefault(needs, set()).update(_run_records(project, contents))
    return [Keeper(tuple(called), needs, frozenset(records[needs])) for needs, called in names.items() if needs]


def describe(project: Project, md5s: dict[str, int]) -> list[Lot]:
    """Say what objects were, the most bytes first: by the newest commit on record that named them, if any did."""
    labels: dict[str, str] = {}
    for owner, content in _records(project):
        if len(labels) == len(md5s):
            break
        if any(md5.encode() in content for md5 in md5s.keys() - labels.keys()):  # parsing takes longer
            with suppress(PawlineError):  # a damaged record of the past tells nothing, and nothing hangs on it
                for named, path in named_objects(content, origin=owner).items():
                    for md5 in (named, *files_within(project.store, named)):
                        if md5 in md5s:
                            labels.setdefault(md5, f"{path} of {owner}")
    sizes: dict[str, list[int]] = {}
    for md5, size in md5s.items():
        sizes.setdefault(labels.get(md5, "unknown: no commit names it"), []).append(size)
    lots = [Lot(what, len(each), sum(each)) for what, each in sizes.items()]
    return sorted(lots, key=lambda lot: (-lot.bytes, lot.what))


def _find_remote(places: Places, name: str) -> Place:
    if name in places.unreachable:
        raise PawlineError(f"the remote {name} cannot be freed: {places.unreachable[name]}")
    remotes = {place.name: place for place in places.remotes}
    if name not in remotes:
        raise PawlineError(f"--remote {name}: there is no such remote; {', '.join(remotes) or 'none is configured'}")
    return remotes[name]


def _commits(project: Project, *, with_remote_branches: bool) -> dict[str, list[str]]:
    """Return the commits on record whose objects are kept, and how each is called."""
    commits: dict[str, list[str]] = {}
    spaces = ["refs/tags", "refs/heads", *(["refs/remotes"] if with_remote_branches else [])]
    form = "%(refname)%1f%(objecttype) %(objectname)%1f%(*objecttype) %(*objectname)"
    listed = git.git(project.root, "for-each-ref", f"--format={form}", *spaces)
    for ref, target, of_tag in (line.split("\x1f") for line in os.fsdecode(listed).split("\n")[:-1]):
        kind, object_id = (of_tag if of_tag.strip() else target).split()
        if kind not in ("commit", "tree") and git.find_commit(project.root, object_id) is None:
            continue  # the tag of a file, which needs no object of DVC's
        called = commits.setdefault(object_id, [])
        name = ledger.shown(ref.split("/", 2)[2].removeprefix(f"{ARTIFACT}@"))
        if not name.startswith(f"{ARTIFACT}#"):  # the tag of a promotion: its version has one too
            called.append(name)
    for version, commit in _registered(project):  # its tag may be missing: interrupted, or fetched without tags
        if version not in commits.setdefault(commit, []):
            commits[commit].append(version)
    commits.setdefault(str(git.find_commit(project.root, "HEAD")), [])
    return commits


def _registered(project: Project) -> Iterator[tuple[str, str]]:
    """Yield each version that the registry ever took in, and its commit."""
    for decision in ledger.load(project.root).decisions:
        if decision.action == "register":
            commit = git.find_commit(project.root, str(decision.commit))
            if commit is None:
                raise PawlineError(
                    f"nothing is deleted: {decision.version} needs what its commit {str(decision.commit)[:10]} names, "
                    "which is not here: `git fetch --tags`, in a shallow clone with --unshallow"
                )
            yield str(decision.version), commit


Files = list[tuple[str, bytes]]  # name, for an error, and content


def _files_of_commits(project: Project, commits: dict[str, list[str]]) -> Iterator[tuple[list[str], Files]]:
    for commit, names in commits.items():
        paths = [path for path in git.list_files(project.root, commit, ".") if _is_dvcs(path)]
        contents = [(f"{path} of {commit[:10]}", git.read_file(project.root, commit, path) or b"") for path in paths]
        yield names or [commit[:10]], contents


def _workspace_files(project: Project) -> Files:
    listed = git.git(project.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    paths = [project.root / name for name in os.fsdecode(listed).split("\0") if _is_dvcs(name)]
    return [(str(path), path.read_bytes()) for path in paths if path.is_file()]


def _is_dvcs(path: str) -> bool:
    """Say whether a file names objects: dvc.lock, or what `dvc add` writes."""
    name = PurePosixPath(path)
    return name.name == "dvc.lock" or (name.suffix == ".dvc" and name.stem != "")


def _files_within(project: Project, md5: str, keeper: str, *, may_be_gone: bool) -> list[str]:
    """Return a needed folder's files; its list alone is fetched if it is not in the cache."""
    if not md5.endswith(lockfile.FOLDER_SUFFIX):
        return []
    content = project.store.read(md5)
    if content is None and may_be_gone:
        return []
    if content is None:
        raise PawlineError(
            f"nothing is deleted: {keeper} needs the folder {md5}, whose list of files is neither in the cache nor in "
            "a remote that can be reached; bring it back (`dvc fetch`), or delete that branch or tag"
        )
    return list(lockfile.parse_folder(content).values())


def _run_records(project: Project, contents: Files) -> Iterator[Path]:
    for name, content in contents:
        try:
            stages = lockfile.parse_lock(content, origin=name).values()
        except PawlineError:  # of another kind than Pawline's stages have: whose notes are its, nobody can tell
            yield from prefect_runs.record_paths(project)
        else:
            yield from (prefect_runs.record_path(project, stage) for stage in stages)


def _records(project: Project) -> Iterable[tuple[str, bytes]]:
    """Yield every record of what was written: dvc.lock of the newest commit on, then DVC's run cache."""
    named = {run.commit: f"experiment {run.name}" for run in experiments(project)}
    # With the reflog: a commit that was amended or thrown away wrote what is in the cache, too.
    log = git.git(project.root, "log", "--all", "--reflog", "--format=%H%x1f%s", "--", "./dvc.lock")
    lines = log.decode(errors="replace").split("\n")  # a subject may hold what else ends a line for Python
    for commit, subject in (line.split("\x1f", 1) for line in lines if line):
        owner = named.get(commit, f"commit {commit[:10]} '{subject}'")
        yield owner, git.read_file(project.root, commit, "dvc.lock") or b"{}"
    for entry in run_cache_entries(project.store):
        yield "a run that was not committed", entry.read_bytes()
