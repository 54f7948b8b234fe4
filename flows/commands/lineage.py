"""`pawline lineage`: where a model, a photo or a prediction came from."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.shared import enter_project
from tasks.named_files import named_file
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from lineage.records import Lineage
    from lineage.runs import Project, Run

WIDTH = 100  # columns, where there is no terminal to ask


def lineage_command(
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="Whose lineage. Default: the workspace's classifier.")
    ] = None,
    other: Annotated[str | None, typer.Argument(metavar="OTHER", help="Say why this one differs from WHAT.")] = None,
    image: Annotated[
        str | None, typer.Option(metavar="ID", help="What happened to one photo; its id or the beginning of it.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page to click through.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print everything as JSON (docs/schemas/).")] = False,
    openlineage: Annotated[bool, typer.Option("--openlineage", help="Print OpenLineage events, one a line.")] = False,
    prov: Annotated[bool, typer.Option("--prov", help="Print a W3C PROV document (PROV-JSON).")] = False,
    cyclonedx: Annotated[bool, typer.Option("--cyclonedx", help="Print a CycloneDX ML-BOM.")] = False,
) -> None:
    """Say where a model came from, back to the photos.

    From git, dvc.lock, and DVC's cache or a remote.

    WHAT is a file, anywhere and of any name (found by its content), a version (v2, champion), an experiment, a git
    revision, a hash, or a row of the predictions. What is in neither the cache nor a remote is named, never guessed.

    \b
    Examples:
      pawline lineage                                     the classifier of the workspace
      pawline lineage ~/Downloads/model.keras             whose is this file?
      pawline lineage v1 v2                               what led to the difference
      pawline lineage champion --html lineage.html        a page to click through
      pawline lineage data/predictions.parquet#17         the photo behind a prediction, and the model
      pawline lineage v2 --image 3fa9c1                   a photo by its id: kept or not, and why
      pawline lineage v2 --cyclonedx > bom.json           for other tools: --openlineage, --prov, --json
    """  # noqa: D301 - \b keeps the lines of the examples apart
    formats = {"--json": json_, "--openlineage": openlineage, "--prov": prov, "--cyclonedx": cyclonedx}
    chosen = [name for name, given in formats.items() if given] + (["--html"] if html else [])
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise PawlineError(f"--html {html}: a page's name ends in .html, as in lineage.html")
    here = enter_project()
    what, other = _row_at(here, what), _row_at(here, other)
    _check(what, other, image, chosen)
    from lineage.runs import Project

    project = Project(Path.cwd())
    as_json = chosen == ["--json"]
    if other is not None:
        _print_differences(project, what, other, here, as_json=as_json)
    elif image is not None:
        _print_photo(project, _find(project, what, here, quiet=as_json), image, as_json=as_json)
    elif what is not None and _is_row(what):
        _print_prediction(project, what, as_json=as_json)
    elif html is not None:
        _write_page(_read(project, _find(project, what, here)), here / html)
    else:
        _print(_read(project, _find(project, what, here, quiet=bool(chosen))), chosen[0] if chosen else "")


def _check(what: str | None, other: str | None, image: str | None, chosen: list[str]) -> None:
    """Refuse options that do not go together."""
    if len(chosen) > 1:
        raise PawlineError(f"{' and '.join(chosen)} exclude each other: give one of them")
    if image is not None and (other is not None or _is_row(what)):
        raise PawlineError("--image asks about one run: give one WHAT, and no row of predictions")
    if other is not None and (_is_row(what) or _is_row(other)):
        raise PawlineError("rows of predictions are not compared: give two versions, experiments, revisions or files")
    if chosen and chosen != ["--json"] and (other is not None or image is not None or _is_row(what)):
        raise PawlineError(f"{chosen[0]} is about one model: give one WHAT and no --image, or use --json")


def _is_row(what: str | None) -> bool:
    """Say whether WHAT names a row of a table; `classifier#champion#1` is a git tag."""
    from lineage.runs import is_file

    table, mark, _ = (what or "").rpartition("#")
    return bool(mark) and not is_file(what or "") and (table.endswith(".parquet") or is_file(table))


def _row_at(here: Path, what: str | None) -> str | None:
    """Return a row of a table with the table's whole name: the user named it from where they stand."""
    from lineage.runs import is_file

    table, mark, row = (what or "").rpartition("#")
    named = mark and is_file(str(here / table)) and not is_file(str(here / (what or "")))
    return f"{here / table}#{row}" if named else what


def _find(project: "Project", what: str | None, here: Path, *, quiet: bool = False) -> "Run":
    """Return the run, and say whose file WHAT is if it is a file (on stderr if stdout is for a program)."""
    from lineage.runs import find_from
    from lineage.tree import short
    from tasks.words import visible

    run = find_from(project, what, here)
    if run.found is not None:
        whose = f"the {run.name}" if run.commit is None else f"{run.name} ({short(run.commit)})"
        typer.echo(visible(f"{'this file' if run.given else what} is {run.found} of {whose}"), err=quiet)
    return run


def _read(project: "Project", run: "Run") -> "Lineage":
    """Return a run's lineage; of a version whose files are not all here, as its entry in the registry has it."""
    from lineage.trace import trace
    from registry import ledger

    found = trace(project, run)
    entry = ledger.load(project.root).entry(found.version) if found.missing and found.version else None
    if entry is None:
        return found
    if (entry.commit, entry.lineage.model) != (run.commit, found.model):
        raise PawlineError(f"tampered: the registry's entry of {found.version} is about another run; `pawline verify`")
    typer.echo(
        f"{len(found.missing)} files are not here: this is what the registry's entry of {found.version} says "
        f"(`pawline verify {found.version}` checks its signature)",
        err=True,
    )
    return entry.lineage


def _print(lineage: "Lineage", form: str) -> None:
    """Print a lineage in one of the forms; the tree is the one without a name."""
    if form == "--json":
        typer.echo(lineage.model_dump_json(indent=2))
    elif form == "--openlineage":
        from lineage.openlineage import events

        for event in events(lineage):
            typer.echo(_json(event, indent=None))
    elif form == "--prov":
        from lineage.prov_document import document

        typer.echo(_json(document(lineage)))
    elif form == "--cyclonedx":
        from lineage.cyclonedx import bom

        typer.echo(_json(bom(lineage)))
    else:
        _print_tree(lineage)


def _print_tree(lineage: "Lineage") -> None:
    """Print the tree: in colour on a terminal, plain into a file or a pipe."""
    from rich.console import Console

    from lineage.tree import build_tree

    width = shutil.get_terminal_size(fallback=(WIDTH, 50)).columns
    Console(width=width, highlight=False).print(build_tree(lineage))


def _write_page(lineage: "Lineage", path: Path) -> None:
    from lineage.page import render

    try:
        with named_file(path) as unfinished:
            unfinished.write_text(render(lineage), encoding="utf-8")
    except OSError as error:
        raise PawlineError(f"--html {path}: {error.strerror}: choose another place") from error
    typer.echo(f"{path}: open it in a browser")


def _print_differences(project: "Project", what: str | None, other: str | None, here: Path, *, as_json: bool) -> None:
    from lineage.differences import differences

    found = differences(project, _find(project, what, here, quiet=as_json), _find(project, other, here, quiet=as_json))
    typer.echo(found.model_dump_json(indent=2) if as_json else "\n".join(found.lines()))


def _print_photo(project: "Project", run: "Run", image: str, *, as_json: bool) -> None:
    from lineage.photo import photo_story

    story = photo_story(project, run, image)
    typer.echo(story.model_dump_json(indent=2) if as_json else "\n".join(story.lines()))


def _print_prediction(project: "Project", what: str, *, as_json: bool) -> None:
    """Print what happened to the photo of a prediction, then where the model came from."""
    from lineage.photo import find_prediction, photo_story

    run, image = find_prediction(project, what)
    story, lineage = photo_story(project, run, image), _read(project, run)
    if as_json:
        typer.echo(_json({"photo": story.model_dump(mode="json"), "lineage": lineage.model_dump(mode="json")}))
    else:
        typer.echo("\n".join([*story.lines(), ""]))
        _print_tree(lineage)


def _json(value: Any, *, indent: int | None = 2) -> str:  # noqa: ANN401 - JSON
    return json.dumps(value, indent=indent, ensure_ascii=False)
