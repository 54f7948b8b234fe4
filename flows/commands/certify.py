"""`pawline certify`: rebuild a run from the photos and certify that every byte came out the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shared import enter_project, interruptible
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from lineage.certificate import Certificate
    from lineage.runs import Project, Run


def certify_command(
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="Which run. Default: that of the workspace.")
    ] = None,
) -> None:
    """Rebuild a run from the photos, and compare every byte.

    In a fresh folder and fresh processes, with what dvc.lock recorded.

    All stages run again, on this machine and with this Python, from the code, parameters and photos of the run; DVC's
    cache serves nothing. It takes as long as the run itself, and as much disk. The verdict goes into
    reports/certificates/, with the digests of all outputs and what the rebuild was computed with; that of a registered
    version, if all is identical, also into the registry, signed. The exit code is 0 if all is identical, 1 if not.

    WHAT is a file (found by its content), a version (v2, champion), an experiment, or a git revision.

    \b
    Examples:
      pawline certify                    the workspace, as after `dvc repro`
      pawline certify v2                 a version; the registry gets the certificate
      pawline certify HEAD~3             an earlier commit that recorded a run
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage import certificate, runs
    from lineage.reproduce import reproduce

    project = runs.Project(Path.cwd())
    run = runs.find_from(project, what, here)
    registered = _is_registered(project, run)
    if registered:
        _check_key(project, run)
    with interruptible("nothing was certified, and nothing of the rebuild is left"):
        reproduction = reproduce(project, run, log=typer.echo)
    made = certificate.certify(project, run, reproduction)
    parts = [made.verdict, f"{made.seconds:.0f} s", f"certificate: {certificate.write(made, project.root)}"]
    if registered and made.identical:
        parts.append(f"decision {_record(project, run, made)} of the registry")
    typer.echo("; ".join(parts))
    if not made.identical:
        raise typer.Exit(1)


def _is_registered(project: "Project", run: "Run") -> bool:
    """Say whether the run is a version of the registry, and not one that only a tag names."""
    from registry import ledger

    return run.kind == "version" and ledger.load(project.root).entry(run.name) is not None


def _check_key(project: "Project", run: "Run") -> None:
    """Make sure, before minutes of work, that the certificate can be signed."""
    from registry import decisions, ledger

    try:
        decisions.check_place(project)
        decisions.load_key(ledger.load(project.root))
        decisions.identity(project.root)
    except PawlineError as error:
        raise PawlineError(f"{error}; `pawline certify {run.commit}` leaves the registry alone") from error


def _record(project: "Project", run: "Run", made: "Certificate") -> int:
    """Put the certificate on record as a signed decision; return its number."""
    from lineage.certificate import content
    from registry import decisions, ledger

    with decisions.deciding(project):
        book = ledger.load(project.root)
        key = decisions.load_key(book)
        folder = f"{ledger.VERSIONS}{run.name}/certificates/"
        number = sum(path.startswith(folder) for path in book.files) + 1
        plan = decisions.Plan(
            action="certify",
            version=run.name,
            commit=run.commit,
            tag=None,
            reason=made.verdict,
            files={f"{folder}{number:04}.json": content(made)},
            details={"identical": made.identical},
        )
        return decisions.decide(book, plan, key).number
