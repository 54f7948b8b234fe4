"""Writing the branch `registry` and its tags by git's plumbing, without the work tree and the index.

So nobody has to change branches, or to have anything committed; and a ref moves only from where it was last seen.
"""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from lineage import git
from lineage.runs import ARTIFACT
from registry.ledger import BRANCH, Ledger
from tasks.stage import PawlineError

NOTHING = ""  # git's old value of a ref that must not be there yet
README = f"""\
# The registry of this repository's classifier

Written by `pawline`; files are added, never changed.

- `decisions/`: what was decided, by whom, when and why, each with the SHA-256 of the one before, and its signature
- `versions/`: for each version its model card, where it came from (`entry.json`), and the classifier's signature
- `keys/`: the public keys that sign

A version is the git tag `{ARTIFACT}@v1.0.0`; the champion is the `{ARTIFACT}#champion#N` with the highest N.
In a clone: `pawline models` lists the versions, `pawline verify v1` checks one from end to end, and
`dvc artifacts get REPO {ARTIFACT} --stage champion` fetches the champion. There, a signature can be checked without
Pawline:

    pip install model-signing
    git show origin/{BRANCH}:versions/v1.0.0/model.sig > model.sig
    git show origin/{BRANCH}:keys/FINGERPRINT.pem > key.pem
    model_signing verify key classifier.keras --signature model.sig --public_key key.pem
"""


def append(book: Ledger, files: dict[str, bytes], message: str) -> str:
    """Add files to the branch in one commit.

    Args:
        book: The registry they are added to.
        files: By path; none may be there yet.
        message: The commit's.

    Returns:
        The commit.

    Raises:
        PawlineError: A file is there already, someone else wrote meanwhile, or git refuses.
    """
    there = sorted(set(files) & set(book.objects))
    if there:
        raise PawlineError(f"the registry has {', '.join(there)} already, and its files are never changed")
    _check_not_checked_out(book.root)
    objects = dict(book.objects)
    for path, content in files.items():
        blob = git.git(book.root, "hash-object", "-w", "--stdin", stdin=content).decode().strip()
        objects[path] = f"100644 blob {blob}"
    parents = [] if book.tip is None else ["-p", book.tip]
    tree = _write_tree(book.root, objects)
    commit = git.git(book.root, "commit-tree", tree, *parents, stdin=f"{message}\n".encode()).decode().strip()
    _point(book.root, f"refs/heads/{BRANCH}", commit, book.local)
    return commit


def tag(root: Path, name: str, commit: str, *, tagger: str, message: str) -> None:
    """Make an annotated tag.

    Args:
        root: The project's folder.
        name: The tag's.
        commit: What it points to.
        tagger: Who and when, as git writes it: `Name <address> seconds +0000`. Equal arguments make an equal object.
        message: The tag's.

    Raises:
        PawlineError: There is one of that name, or git refuses.
    """
    text = f"object {commit}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message}\n"
    made = git.git(root, "mktag", stdin=text.encode()).decode().strip()
    _point(root, f"refs/tags/{name}", made, None)


def _write_tree(root: Path, objects: dict[str, str]) -> str:
    """Write the folders of the branch as git trees, the deepest first, and return the id of the topmost."""
    children: defaultdict[PurePosixPath, dict[str, str]] = defaultdict(dict)
    for path, described in objects.items():
        children[PurePosixPath(path).parent][PurePosixPath(path).name] = described
        for folder in PurePosixPath(path).parents:
            children.setdefault(folder, {})  # it may hold nothing but folders
    tree = ""
    for depth in range(max(len(folder.parts) for folder in children), -1, -1):
        level = sorted(folder for folder in children if len(folder.parts) == depth)
        lists = ["".join(f"{what}\t{name}\n" for name, what in children[folder].items()) for folder in level]
        trees = git.git(root, "mktree", "--batch", stdin="\n".join(lists).encode()).decode().split()
        for folder, tree in zip(level, trees, strict=True):
            if depth > 0:
                children[folder.parent][folder.name] = f"040000 tree {tree}"
    return tree


def _point(root: Path, ref: str, new: str, old: str | None) -> None:
    """Let a branch or tag point to an object, if it still points to the old one."""
    try:
        git.point(root, ref, new, old or NOTHING)
    except PawlineError as error:
        if git.git(root, "for-each-ref", "--format=%(objectname)", ref).decode().strip() != (old or ""):
            raise PawlineError("someone else decided meanwhile: run it again") from error
        raise


def _check_not_checked_out(root: Path) -> None:
    """Refuse while the branch is checked out: that work tree would seem to undo what is added."""
    trees = git.git(root, "worktree", "list", "--porcelain").decode().split("\n\n")
    for tree in trees:
        if f"branch refs/heads/{BRANCH}" in tree.splitlines():
            place = tree.splitlines()[0].removeprefix("worktree ")
            raise PawlineError(
                f"the branch {BRANCH} is checked out in {place}: `git switch --detach` there, then again"
            )
