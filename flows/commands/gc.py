"""`pawline gc`: free the cache of what no version, branch, experiment or the workspace needs."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shared import enter_project, interruptible
from lineage.words import size

if TYPE_CHECKING:
    from lineage.runs import Project
    from registry.retention import Plan

MOST_LINES = 30  # of one list; the rest is summed up


def gc_command(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    drop_experiments: Annotated[
        bool, typer.Option("--drop-experiments", help="Let go what only DVC experiments need, and their pages.")
    ] = False,
    remote: Annotated[str | None, typer.Option(metavar="NAME", help="Free this DVC remote as well.")] = None,
) -> None:
    """Free the cache of what nothing on record needs.

    Kept is what any registered version, any other tag, any branch, the workspace, and any DVC experiment needs. The
    rest is shown before it goes: what it was, how many objects and how much.

    With --remote the branches of git's remotes count as well, as they were last fetched: `git fetch --all --tags`
    first, or what only others know of goes.

    \b
    Examples:
      pawline gc                         show what would go, and ask
      pawline gc --yes                   the same, unasked
      pawline gc --drop-experiments      experiments' outputs too, and the pages of refused retrainings
      pawline gc --remote backup         and what the remote holds
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    with interruptible("what was not deleted yet is freed by the next `pawline gc`"):
        from flows import dvc_graph, experiments, turns
        from lineage.runs import Project
        from registry import decisions, places, retention

        project = Project(Path.cwd())
        with (
            turns.no_retraining(project.root),  # whose run is on no record yet
            experiments.only_command(),
            dvc_graph.only_run(),
            places.opened(project.store) as opened,
        ):
            plan = retention.make_plan(project, opened, drop_experiments=drop_experiments, remote=remote)
            pages = _pages_without_version(project) if drop_experiments else {}
            typer.echo("\n".join(_kept(plan)))
            if not any((*plan.free.values(), plan.unfinished, pages, plan.run_records)):
                typer.echo("nothing to free: everything there is needed")
                return
            typer.echo("\n".join(_freed(project, plan, pages)))
            if not yes and not typer.confirm("delete this?"):
                typer.echo("nothing was deleted")
                return
            with decisions.turn(project.root):  # or a version could still be registered in between
                plan = retention.spare(project, plan)
                dropped = retention.carry_out(project, opened, plan)
                pages = {folder: pages[folder] for folder in _pages_without_version(project) if folder in pages}
                for folder in pages:
                    shutil.rmtree(folder)
    typer.echo(f"freed {_sum(plan, pages)}, and {dropped} entries of DVC's run cache")
    if drop_experiments:
        typer.echo("experiments keep their names and settings: `dvc exp remove --all-commits` removes those too")


def _kept(plan: "Plan") -> Iterable[str]:
    yield "kept:"
    lines = []
    for keeper in plan.keepers:
        all_bytes, alone = plan.needs(keeper)
        absent = len(keeper.md5s - plan.here.keys())
        others = f", of which {size(alone)} nothing else does" if len(plan.keepers) > 1 else ""
        missing = f" ({absent} of its {len(keeper.md5s)} objects are not in the cache)" if absent else ""
        lines.append(f"  {', '.join(keeper.names)} needs {size(all_bytes)}{others}{missing}")
    yield from _shortened(lines)


def _pages_without_version(project: "Project") -> dict[Path, int]:
    """Return the folders of pages of retrainings that brought no version, with their bytes."""
    from flows.worktree import REPORTS_DIR
    from lineage.runs import experiments
    from registry import ledger

    registered = {decision.commit for decision in ledger.load(project.root).decisions if decision.action == "register"}
    folders = [REPORTS_DIR / run.name for run in experiments(project) if run.commit not in registered]
    return {
        folder: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in folders
        if folder.is_dir() and not folder.is_symlink()
    }


def _freed(project: "Project", plan: "Plan", pages: dict[Path, int]) -> Iterable[str]:
    from registry import places, retention

    for place, objects in plan.free.items():
        if objects:
            yield f"goes from {'the cache' if place == places.CACHE else f'the remote {place}'}:"
            lots = retention.describe(project, objects)
            yield from _shortened(
                f"  {size(lot.bytes):>8}  {lot.objects:6,} object{'s' if lot.objects != 1 else ' '}  {lot.what}"
                for lot in lots
            )
    if plan.unfinished:
        taken = size(sum(plan.unfinished.values()))
        yield f"goes from the cache: {taken} in {len(plan.unfinished):,} unfinished, of a DVC that was killed"
    if pages:
        yield f"goes from reports/retrain: {size(sum(pages.values()))}, pages of {len(pages)} that brought no version"
    if plan.run_records:
        yield f"goes from the notes on Prefect's runs: {len(plan.run_records):,}, of stages that nobody keeps"
    yield f"together {_sum(plan, pages)}"


def _shortened(lines: Iterable[str]) -> list[str]:
    listed = list(lines)
    if len(listed) <= MOST_LINES:
        return listed
    return [*listed[:MOST_LINES], f"  ... and {len(listed) - MOST_LINES} more"]


def _sum(plan: "Plan", pages: dict[Path, int]) -> str:
    going = [*plan.unfinished.values(), *(taken for sizes in plan.free.values() for taken in sizes.values())]
    shown = f"{size(sum(going) + sum(pages.values()))} in {len(going):,} objects"
    return f"{shown} and pages of {len(pages)} retrainings" if pages else shown
