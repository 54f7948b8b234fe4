"""`pawline forget`: delete photos and what was computed from them everywhere, and put that on record."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.models import ReasonOption
from flows.commands.shared import enter_project, interruptible
from lineage.words import first_of, size

if TYPE_CHECKING:
    from lineage.runs import Project, Run
    from registry.forget import Plan
    from registry.ledger import Ledger
    from registry.places import Places
    from registry.records import Decision
    from registry.signing import SigningKey

FORGET_KEY = "data.forget"
_listed = partial(first_of, most=8)  # the rest is counted


def forget_command(
    photos: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, beginnings of ids, or files.")],
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what there is, and change nothing.")] = False,
) -> None:
    """Delete photos and what was computed from them, for good.

    They are never taken again, whatever the source still holds.

    A photo is meant by its id, the SHA-256 of its bytes, by 6 or more of the id's first digits, or by a file with
    these bytes. Shown is which versions and runs were trained on it or used it otherwise, and what holds its bytes,
    pixels or features. After a question this is deleted: in DVC's cache, in the workspace, and in every DVC remote.
    The id goes into data.forget of params.yaml, so that `ingest` leaves the photo out whatever the source still holds,
    and a signed decision into the registry. Models stay: retrain and replace those that were trained on it.

    It can be run again at any time, after an interruption or to delete what came back; with a remote that could not
    be reached it ends with exit code 1 until that was done.

    \b
    Examples:
      pawline forget 3fa9c1 --dry-run                           what there is
      pawline forget ~/photo.jpg -m 'request 2026-17'           a photo by its bytes
      pawline forget 3fa9c1 77ab02 --yes                        two, unasked
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    with interruptible("run it again: it carries on from here"):
        from flows import dvc_graph, experiments, turns
        from lineage.runs import Project
        from registry import decisions, forget, ledger, places

        wanted = [forget.digest_or_beginning(text, here) for text in photos]
        project = Project(Path.cwd())
        decisions.check_place(project)
        with (
            turns.no_retraining(project.root),
            # Without the change that it would be to finish decisions which were interrupted.
            decisions.turn(project.root) if dry_run else decisions.deciding(project),
            experiments.only_command(),
            dvc_graph.only_run(),
            places.opened(project.store) as opened,
        ):
            book = ledger.load(project.root)
            key = None if dry_run else _load_key(book)
            plan = forget.make_plan(project, opened, book, wanted)
            typer.echo("\n".join([*_photos(plan), *_uses(project, plan), *_holders(plan, opened)]))
            if key is None:
                return
            if not yes and not plan.is_forgotten and not typer.confirm("forget it? This cannot be undone"):
                typer.echo("nothing was changed")
                return
            unreachable = _forget(project, opened, plan, reason, book=book, key=key)
    if unreachable:
        typer.echo(f"not finished: run it again when {' and '.join(unreachable)} can be reached", err=True)
        raise typer.Exit(1)


def _load_key(book: "Ledger") -> "SigningKey":
    """Return the key that signs, if there is everything that a decision needs: nothing was deleted yet."""
    from registry import decisions

    decisions.identity(book.root)
    return decisions.load_key(book)


def _forget(
    project: "Project", places: "Places", plan: "Plan", reason: str, *, book: "Ledger", key: "SigningKey"
) -> list[str]:
    """Delete everything and record it; return the remotes that may still hold something."""
    from flows import worktree as retraining
    from registry import forget

    _keep_out(plan)
    if plan.is_forgotten and plan.pending <= places.unreachable.keys():
        typer.echo(f"forgotten since {plan.earlier[0].time}: nothing of it came back")
        return sorted(plan.pending)
    retraining.delete_pictures(project.root)
    unreachable = forget.delete(project, places, plan)
    decision = forget.record(plan, places, unreachable, reason, book=book, key=key)
    typer.echo("\n".join(_what_remains(plan, decision)))
    return sorted(unreachable)


def _keep_out(plan: "Plan") -> None:
    """Write the ids into params.yaml, if they are not there."""
    from flows import presets
    from tasks.params_file import read_values

    present = read_values(presets.PARAMS_PATH)["data"].get("forget", [])
    missing = [image_id for image_id in plan.ids if image_id not in present]
    if missing:
        presets.write_settings(presets.changes({FORGET_KEY: [*present, *missing]}))


def _photos(plan: "Plan") -> Iterator[str]:
    from registry.forget import SHOWN_DIGITS

    for image_id in plan.ids:
        yield f"photo {image_id[:SHOWN_DIGITS]}  {_listed(plan.files[image_id]) or 'in no run on record any more'}"
    if plan.near:
        shown = [f"{row.id[:SHOWN_DIGITS]} {row.path}" for row in plan.near]
        yield f"near-duplicates, which are other photos and stay unless you name them too: {_listed(shown)}"


def _uses(project: "Project", plan: "Plan") -> Iterator[str]:
    from lineage.runs import champion
    from registry.holders import ROLES

    best = champion(project)
    for role in ROLES.values():
        users = [_name(use.run, best) for use in plan.uses if role in use.roles]
        if role == "trained on":
            yield f"trained on it, to be retrained: {_listed(users) or 'none'}"
        elif users:
            yield f"{role} it: {_listed(users)}"
    if plan.unknown:
        yield f"unknown, because the image table is nowhere: {_listed(plan.unknown)}"


def _holders(plan: "Plan", places: "Places") -> Iterator[str]:
    from registry.places import CACHE

    for name, why in places.unreachable.items():
        yield f"the remote {name} cannot be reached: {why}"
    if plan.is_gone:
        yield "nothing that can be reached holds any of it"
        return
    yield "to be deleted:"
    for place, objects in plan.held.items():
        if objects:
            folders = sorted({"/".join(plan.holders[md5].split("/")[:2]) for md5 in objects})
            where = place if place == CACHE else f"the remote {place}"
            yield f"  from {where}: {size(sum(objects.values()))} in {len(objects):,} objects of {_listed(folders)}"
    if plan.copies:
        taken = size(sum(path.stat().st_size for path in plan.copies))
        files = _listed([str(path.relative_to(Path.cwd())) for path in plan.copies])
        yield f"  from the workspace: {taken} in {len(plan.copies):,} files: {files}"
    yield "stays: models, and tables such as data/images.parquet and data/predictions.parquet (its id and figures)"


def _what_remains(plan: "Plan", decision: "Decision") -> Iterator[str]:
    objects = sum(map(len, plan.held.values()))
    yield f"forgotten: {objects:,} objects and {len(plan.copies):,} files deleted, decision {decision.number} recorded"
    yield "what remains for you:"
    for source, path in plan.sources:
        if source == "synthetic":
            yield "  the source is synthetic: the picture is drawn again and left out"
        else:
            downloaded = ", and its download in the user's cache folder" if "://" in path else ""
            yield f"  the source itself, data.path {path or '(TFDS)'}: delete it there{downloaded}"
    yield "  backups, and clones with a cache of their own: run this command there as well"
    yield "  commit params.yaml, on every branch that is still run; then `dvc repro`, commit, and `pawline register`"
    if decision.details["versions"]:
        yield f"  trained on it, to be replaced: {', '.join(decision.details['versions'])}; then `pawline promote`"
    yield "  objects that no commit names may hold it too: `pawline gc` deletes those"


def _name(run: "Run", champion: "Run | None") -> str:
    if champion is not None and run.name == champion.name:
        return f"{run.name} (champion)"
    return f"{run.kind} {run.name}" if run.kind in ("commit", "experiment") else run.name
