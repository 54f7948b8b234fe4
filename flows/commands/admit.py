"""`pawline admit`: let another key sign decisions."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.models import SHOWN_ID, UNDECIDED, ReasonOption
from flows.commands.shared import enter_project, interruptible
from tasks.stage import PawlineError


def admit_command(
    key: Annotated[Path, typer.Argument(metavar="FILE", help="Their public key (PEM).")], reason: ReasonOption = ""
) -> None:
    """Let another key sign decisions.

    The key of the registry's first decision counts, and so does every key that one which counts has admitted, from that
    decision on. `pawline verify` holds every decision to that. An admission cannot be taken back.

    Pawline keeps everybody's public key beside their private one, as signing-key.pub.pem; the message that refuses a
    key says where.

    \b
    Examples:
      pawline admit bob.pub.pem -m "Bob joins the team"
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import Project
    from registry import decisions

    try:
        content = (here / key).read_bytes()
    except OSError as error:
        raise PawlineError(f"{key}: {error.strerror}: `pawline admit` takes a public key in PEM") from error
    with interruptible(UNDECIDED):
        decision = decisions.admit(Project(Path.cwd()), content, reason=reason)
    typer.echo(f"admitted the key {decision.details['key'][:SHOWN_ID]}: decision {decision.number}")
    typer.echo("next: `git push origin registry`; its owner runs `git fetch`, then decides")
