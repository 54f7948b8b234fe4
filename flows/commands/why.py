"""`pawline why`: why a stage would run, or not."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.shared import enter_project


def why_command(
    stage: Annotated[
        str | None, typer.Argument(metavar="STAGE", help="Explain this one in full. Default: a line for each.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON document instead.")] = False,
) -> None:
    """Say why a stage would run now, or not.

    As if `dvc repro` were typed.

    Down to the parameter, the line of code, the photos or the output that changed since the stage last ran (dvc.lock).
    DVC decides by content: committed or not makes no difference, and a stage whose inputs are made anew with the same
    bytes is skipped in the end. Nothing is run or written.

    \b
    Examples:
      pawline why                  one line for each stage
      pawline why train_head       every reason, with the lines of code
      pawline why --json           for other programs
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    from lineage.runs import Project
    from lineage.why import explain

    why = explain(Project(Path.cwd()))
    chosen = why if stage is None else why.stage(stage)
    if json_:
        typer.echo(chosen.model_dump_json(indent=2))
    else:
        nothing = why.nothing_ran and stage is not None
        typer.echo("\n".join(why.lines() if nothing else chosen.lines()))
