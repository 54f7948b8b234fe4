"""Git underneath: what tests do to a repository in the current folder."""

import subprocess
from pathlib import Path


def git(*arguments: str, stdin: str | None = None) -> str:
    """Run git in the current folder and return what it printed."""
    done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def git_in(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it printed."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def keep_in_registry(path: str, content: str) -> None:
    """Make the registry's branch of one file."""
    tree = git("hash-object", "-w", "--stdin", stdin=content)
    kind, mode = "blob", "100644"
    for name in reversed(path.split("/")):
        tree = git("mktree", stdin=f"{mode} {kind} {tree}\t{name}\n")
        kind, mode = "tree", "040000"
    git("update-ref", "refs/heads/registry", git("commit-tree", tree, "-m", "registry"))
