"""`pawline card`: what a version is, can and cannot do, on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shared import enter_project
from tasks.named_files import named_file
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from lineage.runs import Project, Run


def card_command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="A version, file, experiment or git revision. Default: the champion, or the workspace without one.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the card as a page.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the card's Markdown.")] = None,
) -> None:
    """Print the model card of a version.

    Classes, data, recipe, figures by slice, limits, licences, and where it came from.

    It is Markdown with the front matter that model hubs read, and holds nothing but facts on record. Of a registered
    version it is the copy that was signed with it (`pawline verify` checks that); of other runs it is made now.

    \b
    Examples:
      pawline card                          the champion's, or the workspace's if there is none
      pawline card v2 --out README.md       for a model hub
      pawline card v2 --html card.html      a page that stands by itself
      pawline card HEAD                     before it is registered
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import WORKSPACE, Project, champion, find_from

    project = Project(Path.cwd())
    run = champion(project) or WORKSPACE if what is None else find_from(project, what, here)
    markdown = _card_of(project, run)
    if out is None and html is None:
        typer.echo(markdown, nl=False)
    if out is not None:
        _write(markdown, out, "--out", here=here)
        typer.echo(f"{out}: the card of {run.name}")
    if html is not None:
        from registry.card import render_html

        _write(render_html(markdown), html, "--html", here=here)
        typer.echo(f"{html}: the card of {run.name}; open it in a browser")


def _card_of(project: "Project", run: "Run") -> str:
    """Return the registry's copy of a version's card, or make the run's."""
    from registry import ledger

    if run.kind == "version":
        signed = ledger.load(project.root).read(f"{ledger.VERSIONS}{run.name}/card.md")
        if signed is not None:
            return signed.decode("utf-8")
    from lineage.trace import trace
    from registry.card import render_card

    return render_card(project, trace(project, run), run.name)


def _write(text: str, path: Path, option: str, *, here: Path) -> None:
    """Write a file that the user named from where they stand."""
    try:
        with named_file(here / path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PawlineError(f"{option} {path}: {error.strerror}: choose another place") from error
