"""Runs that are nothing but a dvc.lock and the bytes it names, made in a moment: for what stores and fetches bytes."""

import hashlib
import json
from pathlib import Path

from lineage.lockfile import FOLDER_SUFFIX
from lineage.runs import Project, Run
from tests.plumbing import git_in

Output = bytes | dict[str, bytes]  # a file, or a folder's files by their names


def make_project(folder: Path, *remotes: str) -> Project:
    """Make a project in git, with folders beside it as DVC remotes; the first one is the default."""
    (folder / ".dvc").mkdir(parents=True)
    lines = ["[core]", "analytics = false", *(f"remote = {name}" for name in remotes[:1])]
    for name in remotes:
        (folder.parent / name).mkdir()
        lines += [f"['remote \"{name}\"']", f"url = ../../{name}"]
    (folder / ".dvc/config").write_text("\n".join(lines) + "\n")
    (folder / ".gitignore").write_text("/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n")
    git_in(folder, "init", "--quiet")
    for key, value in (("name", "tests"), ("email", "tests@example.com")):
        git_in(folder, "config", f"user.{key}", value)
    return Project(folder)


def keep_run(project: Project, outputs: dict[str, Output], version: str) -> Run:
    """Put the outputs of a run into DVC's cache, commit the dvc.lock that names them, and tag it as a version."""
    lines = ["schema: '2.0'", "stages:", "  make:", "    cmd: make", "    outs:"]
    for path, output in outputs.items():
        files = {path: output} if isinstance(output, bytes) else output
        md5s = {name: keep(project, content) for name, content in files.items()}
        listing = json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(md5s.items())]).encode()
        md5 = md5s[path] if isinstance(output, bytes) else keep(project, listing, FOLDER_SUFFIX)
        count = "" if isinstance(output, bytes) else f", nfiles: {len(files)}"
        lines.append(f"    - {{path: {path}, hash: md5, md5: {md5}, size: {sum(map(len, files.values()))}{count}}}")
    (project.root / "dvc.lock").write_text("\n".join(lines) + "\n")
    git_in(project.root, "add", "--all")
    git_in(project.root, "commit", "--quiet", "--message", f"Make {version}")
    git_in(project.root, "tag", f"classifier@{version}")
    return Run(version, "version", git_in(project.root, "rev-parse", "HEAD"))


def keep(project: Project, content: bytes, suffix: str = "") -> str:
    """Put bytes into DVC's cache and return their name there."""
    md5 = md5_of(content) + suffix
    path = project.store.object_path(md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def md5_of(content: bytes) -> str:
    """Return how DVC calls bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
