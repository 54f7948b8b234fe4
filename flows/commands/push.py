"""`pawline push`: the bytes of every version to a remote."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.shared import enter_project, interruptible
from tasks.stage import PawlineError


def push_command(
    remote: Annotated[
        str | None, typer.Option("--remote", "-r", help="Which DVC remote. Default: the default one.")
    ] = None,
) -> None:
    """Copy the files of every version to a remote.

    Whatever remote was configured when a version was made: `dvc push --all-tags` asks the configuration of each tag's
    commit, and passes over versions that are older than the remote. What is there already is not copied again, and what
    was forgotten (`pawline forget`) not at all. A version whose files are neither there nor here is named, the others
    are copied, and the exit code is 1. A folder that is not there, such as a share that is not mounted, is not made:
    `pawline remote add` does that.

    \b
    Examples:
      pawline push                   to the default remote (`pawline remote add URL`)
      pawline push --remote backup
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    from flows import remotes
    from lineage.runs import Project, versions
    from lineage.verify_registry import forgotten_objects

    project = Project(Path.cwd())
    known = project.store.remotes
    if not known or (remote and remote not in known):
        there = f"there are {', '.join(known)}" if known else "there is none: `pawline remote add URL`"
        raise PawlineError(f"no remote{f' {remote}' if remote else ''} is configured; {there}")
    with interruptible("what was copied is there; run it again for the rest"):
        place = remotes.find_remote(project.root, remote or known[0])
        if place.can_be_tried:
            remotes.check_access(place)
        registered = versions(project)
        if not registered:
            raise PawlineError(
                "no version is registered here, so there is nothing to copy: `pawline register` makes the last "
                "committed run one (in a clone, `git fetch --tags`)"
            )
        forgotten, failed = forgotten_objects(project), False
        for version in registered:
            try:
                copied = project.store.push_outputs(project.lock(version), remote or known[0], forgotten)
            except PawlineError as error:  # the other versions can be copied all the same
                typer.echo(f"{version.name}: {error}", err=True)
                failed = True
                continue
            typer.echo(f"{version.name}: {copied or 'no'} files copied to {remote or known[0]}")
    if failed:
        raise typer.Exit(1)
    typer.echo("next: `git push origin registry --tags`; who clones then checks with `pawline verify VERSION --fetch`")
