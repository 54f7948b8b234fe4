"""One byte of everything is changed, once each: `verify` finds every change, and nothing in what was left alone."""

import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lineage.git import git
from lineage.links import Link
from lineage.lockfile import FOLDER_SUFFIX, parse_folder
from lineage.runs import MODEL_PATH, WORKSPACE, Project, Run, find_run
from lineage.verify import verify
from registry import ledger
from registry.decisions import Plan, admit, decide
from registry.register import register
from registry.signing import load_key
from tests.test_pipeline import run as run_command

SEED = 20240229
KEPT_BY_GIT = (
    "params.yaml", "dvc.yaml", "dvc.lock", "requirements.lock", "tasks/features.py", "tasks/report/page/page.html.j2",
    "tasks/backbone_layers/VGG16.txt",
)  # fmt: skip
TIP = "refs/heads/registry"
GIT_OBJECTS = (
    "HEAD", "HEAD^{tree}", "HEAD:tasks", "HEAD:dvc.lock", "HEAD:dvc.yaml", "HEAD:params.yaml", "HEAD:tasks/stage.py",
    "HEAD:tasks/backbone_layers", "HEAD:tasks/backbone_layers/VGG16.txt", "refs/tags/classifier@v2.0.0",
    "refs/tags/classifier#champion#1", TIP, f"{TIP}^{{tree}}", f"{TIP}:versions", f"{TIP}:decisions/0001.json",
    f"{TIP}:decisions/0002.sig", f"{TIP}:versions/v2.0.0/entry.json", f"{TIP}:versions/v2.0.0/model.sig",
)  # fmt: skip
TAG_CHANGES = {
    "a version's tag moved": ("update-ref", "refs/tags/classifier@v2.0.0", "HEAD~1"),
    "the champion's tag made anew": ("tag", "-f", "-a", "-m", "x", "classifier#champion#1", "HEAD~1"),
    "the champion's tag gone": ("tag", "-d", "classifier#champion#1"),
    "a champion that nobody decided on": ("tag", "-a", "-m", "x", "classifier#champion#2", "HEAD~1"),
    "a version that nobody registered": ("tag", "classifier@v3.0.0", "HEAD~2"),
}


def verify_again(folder: Path, run: Run = WORKSPACE) -> list[Link]:
    """Verify with nothing remembered."""
    return verify(Project(folder), run)


def broken(links: list[Link]) -> set[str]:
    return {f"{link.status} {link.kind} {link.name}" for link in links if not link.holds}


class Flips:
    """Changes bytes, and keeps count of what was not found."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.done, self.missed = 0, list[str]()
        self._folder, self._run = folder, run
        self._random = random.Random(SEED)  # noqa: S311 - reproducible, not secret
        self._before = broken(verify_again(folder, run))

    def of(self, content: bytes) -> tuple[bytes, str]:
        """Return the content with one byte changed, and which."""
        place, flip = self._random.randrange(len(content)), self._random.randrange(1, 256)
        return content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :], f"byte {place} ^ {flip:#04x}"

    @contextmanager
    def of_file(self, path: Path, part: slice = slice(None)) -> Iterator[str]:
        """Let one byte of a file, or of a part of it, be another for a while. DVC's and git's are write-protected."""
        mode, before = path.stat().st_mode, path.read_bytes()
        start, end, _ = part.indices(len(before))
        changed, which = self.of(before[start:end])
        path.chmod(0o644)
        path.write_bytes(before[:start] + changed + before[end:])
        yield f"{path.relative_to(self._folder)}, from {start}, {which}"
        path.write_bytes(before)
        path.chmod(mode)

    def check(self, what: str) -> None:
        """See whether a change is found."""
        self.done += 1
        if not broken(verify_again(self._folder, self._run)) - self._before:
            self.missed.append(what)


def test_a_flipped_byte_of_each_file_in_workspace_and_cache_is_found(registered: Path) -> None:
    """All files of a place at once, so that each must be found by its own link."""
    assert not broken(verify_again(registered)), "nothing was changed"
    count = 0
    for what in ("workspace", "v1"):
        run = find_run(Project(registered), what)
        flips = Flips(registered, run)
        files = output_files(Project(registered), run)
        folders = {path: md5 for path, md5 in files.items() if md5.endswith(FOLDER_SUFFIX)}
        places = [{path: Project(registered).store.object_path(md5) for path, md5 in folders.items()}]
        files = {path: md5 for path, md5 in files.items() if path not in folders}
        places += [{path: Project(registered).store.object_path(md5) for path, md5 in files.items()}]
        places += [{path: registered / path for path in files}] if run == WORKSPACE else []
        for paths in places:
            with ExitStack() as changes:
                for path in set(paths.values()):
                    changes.enter_context(flips.of_file(path))
                tampered = {link.name for link in verify_again(registered, run) if link.status == "tampered"}
            assert paths.keys() <= tampered
            count += len(set(paths.values()))
    assert count > 150
    assert not broken(verify_again(registered)), "everything is as it was"


def output_files(project: Project, run: Run) -> dict[str, str]:
    """Return the md5 of each output folder and each file of an output."""
    files = {}
    for out in (out for stage in project.lock(run).values() for out in stage.outs):
        files[out.path] = out.md5
        if out.is_folder:
            inside = parse_folder(project.store.object_path(out.md5).read_bytes())
            files |= {f"{out.path}/{name}": md5 for name, md5 in inside.items()}
    return files


def test_a_flipped_byte_of_what_git_keeps_is_found(three_runs: Path) -> None:
    remove_outputs(three_runs)
    flips = Flips(three_runs, WORKSPACE)
    for path in KEPT_BY_GIT:
        for _ in range(2):
            with flips.of_file(three_runs / path) as what:
                flips.check(what)
    assert (flips.done, flips.missed) == (2 * len(KEPT_BY_GIT), [])


def remove_outputs(folder: Path) -> None:
    """Take away what takes time to hash and has tests of its own; it is missing then, before and after a change."""
    for name in ("data", "models", "reports", ".dvc/cache"):
        shutil.rmtree(folder / name)


def test_a_flipped_byte_of_each_git_object_is_found(registered: Path) -> None:
    run = find_run(Project(registered), "v2")
    remove_outputs(registered)
    flips = Flips(registered, run)
    ids = [git(registered, "rev-parse", name).decode().strip() for name in GIT_OBJECTS]
    for object_id in ids:
        with flips.of_file(registered / ".git/objects" / object_id[:2] / object_id[2:]) as what:
            flips.check(what)
    git(registered, "gc", "--quiet")
    [pack] = (registered / ".git/objects/pack").glob("*.pack")
    places = pack_places(registered, pack)
    for object_id in ids:
        with flips.of_file(pack, places[object_id]) as what:
            flips.check(what)
    assert (flips.done, flips.missed) == (2 * len(GIT_OBJECTS), [])


def pack_places(folder: Path, pack: Path) -> dict[str, slice]:
    """Return where each object lies in a pack."""
    lines = git(folder, "verify-pack", "-v", str(pack.with_suffix(".idx"))).decode().splitlines()
    fields = [line.split() for line in lines if len(line.split()) >= 5]
    return {one[0]: slice(int(one[4]), int(one[4]) + int(one[3])) for one in fields if len(one[0]) == 40}


def test_every_change_of_the_registry_is_found(registered: Path) -> None:
    """As one who may write to the repository would: the branch is made anew, its commits and trees are in order."""
    run = find_run(Project(registered), "v2")
    remove_outputs(registered)
    flips = Flips(registered, run)
    tip = git(registered, "rev-parse", TIP).decode().strip()
    for path in git(registered, "ls-tree", "-r", "--name-only", tip).decode().split():
        content, which = flips.of(git(registered, "cat-file", "blob", f"{tip}:{path}"))
        rewrite_branch(registered, tip, path, content)
        flips.check(f"{path}, {which}")
    rewrite_branch(registered, tip, "decisions/0003.json", None)
    flips.check("decision 3 is gone, its signature is not")
    git(registered, "update-ref", TIP, f"{tip}~1")
    flips.check("decision 3 is gone")
    git(registered, "update-ref", TIP, tip)
    for what, change in TAG_CHANGES.items():
        with tags_restored(registered):
            git(registered, *change)
            flips.check(what)
    assert flips.done > 20
    assert not flips.missed


def test_a_key_that_nobody_admitted_changes_nothing(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who may write to the repository decides with a key of their own, brought along by the decision itself."""
    team = tmp_path / "team.pem"
    team.write_bytes(load_key().public_pem)
    assert not broken(verify(Project(registered), find_run(Project(registered), "champion"), registry_key=team))
    md5 = output_files(Project(registered), find_run(Project(registered), "v2"))[MODEL_PATH]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mallory"))
    older = find_run(Project(registered), "v1")
    details = {"objects": [md5], "versions": [], "ids": []}
    for plan in (
        Plan("promote", "v1.0.0", older.commit, "classifier#champion#2", ""),
        Plan("forget", None, None, None, "", details=details),
    ):
        decide(ledger.load(registered), plan, load_key())
    Project(registered).store.object_path(md5).unlink()
    (registered / MODEL_PATH).unlink()
    for what in ("v1", "v2", "champion"):
        found = broken(verify(Project(registered), find_run(Project(registered), what), registry_key=team))
        forged = {"signature decisions/0004.sig", "signature decisions/0005.sig", "tag classifier#champion#2"}
        assert {f"tampered {name}" for name in forged} <= found
    assert f"missing output {MODEL_PATH}" in broken(verify_again(registered, find_run(Project(registered), "v2")))


def test_the_given_key_is_that_of_the_first_decision(
    three_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = ("classifier@v1.0.0", "classifier@v2.0.0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "bob"))
    bob = load_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "ada"))
    ada = load_key()
    register(Project(three_runs), find_run(Project(three_runs), "HEAD~1"), reason="")
    admit(Project(three_runs), bob.public_pem, reason="")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "bob"))
    register(Project(three_runs), find_run(Project(three_runs), "HEAD"), reason="")
    run = find_run(Project(three_runs), "v2")
    assert not broken(verify(Project(three_runs), run, registry_key=ada.public_path)), "admitted by the given key"
    [wrong] = broken(verify(Project(three_runs), run, registry_key=bob.public_path))
    assert wrong == f"tampered signature the given key {bob.fingerprint[:12]}"
    git(three_runs, "tag", "--delete", *remove)
    git(three_runs, "branch", "-D", "registry")
    register(Project(three_runs), find_run(Project(three_runs), "HEAD"), reason="the history made anew by bob")
    run = find_run(Project(three_runs), "v1")
    assert not broken(verify_again(three_runs, run)), "on its own it is in order"
    [wrong] = broken(verify(Project(three_runs), run, registry_key=ada.public_path))
    assert wrong == f"tampered signature the given key {ada.fingerprint[:12]}"


def test_a_decision_under_another_name_is_found(registered: Path) -> None:
    tip = git(registered, "rev-parse", TIP).decode().strip()
    unsigned = git(registered, "cat-file", "blob", f"{tip}:decisions/0003.json").replace(b'"number": 3', b'"number": 4')
    remove_outputs(registered)
    for name in ("00004.json", "4.json", "0004.json.json"):
        rewrite_branch(registered, tip, f"decisions/{name}", unsigned)
        found = broken(verify_again(registered, find_run(Project(registered), "v2")))
        assert f"tampered registry decisions/{name}" in found


def rewrite_branch(folder: Path, tip: str, path: str, content: bytes | None) -> None:
    """Let the branch end in a commit like `tip` with one file changed, or without it."""
    tree: dict[str, str] = {}
    for line in git(folder, "ls-tree", "-r", tip).decode().splitlines():
        described, name = line.split("\t")
        tree[name] = described
    if content is None:
        del tree[path]
    else:
        tree[path] = f"100644 blob {git(folder, 'hash-object', '-w', '--stdin', stdin=content).decode().strip()}"
    lines = "".join(f"{described}\t{name}\n" for name, described in tree.items())
    git(folder, "read-tree", "--empty")
    git(folder, "update-index", "--index-info", stdin=lines.encode())
    forged = git(folder, "commit-tree", git(folder, "write-tree").decode().strip(), "-p", f"{tip}~1", "-m", "x")
    git(folder, "read-tree", "HEAD")
    git(folder, "update-ref", TIP, forged.decode().strip())


@contextmanager
def tags_restored(folder: Path) -> Iterator[None]:
    before = git(folder, "for-each-ref", "--format=create %(refname) %(objectname)", "refs/tags")
    yield
    now = git(folder, "for-each-ref", "--format=delete %(refname)", "refs/tags")
    git(folder, "update-ref", "--stdin", stdin=now)
    git(folder, "update-ref", "--stdin", stdin=before)


def test_a_clone_is_verified_once_it_has_pulled_and_says_before_what_to_pull(registered: Path, tmp_path: Path) -> None:
    run_command(["dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote")], registered)
    git(registered, "commit", "--quiet", "--all", "--message", "Share")
    run_command(["dvc", "push", "--quiet", "--all-commits"], registered)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(registered), str(clone))
    version = find_run(Project(clone), "v2")
    before = [link for link in verify_again(clone, version) if not link.holds]
    assert {link.detail for link in before} == {"`pawline verify v2.0.0 --fetch`"}
    assert {link.status for link in before} == {"missing"}
    project = Project(clone)
    project.store.fetch_outputs(project.lock(version), ())
    assert not broken(verify_again(clone, version))
    run_command(["dvc", "checkout", "--quiet"], clone)
    assert not broken(verify_again(clone))
