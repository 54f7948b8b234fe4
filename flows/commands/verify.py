"""`pawline verify`: recompute every hash of a run from the bytes."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shared import enter_project, interruptible
from lineage.words import size as in_words

if TYPE_CHECKING:
    from lineage.links import Link, Status
    from lineage.reproduce import Reproduction
    from lineage.runs import Project, Run

GROUPS = {  # a group's name on the screen, and what its links are; outputs are grouped by the stage that wrote them
    "file": ("the file", "file"),
    "git": ("git", "objects"),
    "lock": ("dvc.lock", "records"),
    "graph": ("dvc.lock", "records"),
    "params": ("dvc.lock", "records"),
    "code": ("code", "files"),
    "input": ("inputs", "hand-overs"),
    "weights": ("weights", "facts"),
    "metrics": ("metrics", "facts"),
    "registry": ("registry", "records"),
    "decision": ("registry", "records"),
    "signature": ("registry", "records"),
    "tag": ("registry", "records"),
    "entry": ("SHA-256", "files"),
}
WORST: tuple["Status", ...] = ("tampered", "missing", "uncommitted", "forgotten", "verified")
LINES = 12  # of a group's links that do not hold


def verify_command(
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="Which run. Default: that of the workspace.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Bring what is not here from the remotes first.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print every link as a JSON document instead.")] = False,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Rebuild everything from the photos, too, and compare the bytes.")
    ] = False,
    registry_key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="A public key you got elsewhere, which must have signed decision 1."),
    ] = None,
) -> None:
    """Hash every file of a run again, and compare it with the record.

    Nothing is believed, git and DVC included.

    From the commit through its trees to parameters, code and dvc.lock; from there through every stage to its outputs,
    in DVC's cache and in the workspace; the weights by their digest, the metrics from the predictions; and of a version
    all decisions, signatures and tags of the registry. The exit code is 0 if all is verified, and 1 if not:

    \b
    tampered       the bytes are not those on record
    missing        they are not here; the line says where they can be had from
    uncommitted    a file that git keeps differs from the commit
    forgotten      deleted by a signed decision (`pawline forget`): counts as verified

    WHAT is a file (found by its content), a version (v2, champion), an experiment, or a git revision.

    \b
    Examples:
      pawline verify                           the workspace
      pawline verify v2                        a version, and its place in the registry
      pawline verify ~/Downloads/model.keras   the run that wrote this file
      pawline verify champion --registry-key team.pem
      pawline verify v2 --fetch                in a clone that has not pulled
      pawline verify v2 --reproduce            rebuild it as well: takes as long as the run itself
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage import busy, links, runs
    from lineage.verify import verify
    from lineage.verify_registry import forgotten_objects

    project = runs.Project(Path.cwd())
    run = runs.find_from(project, what, here)
    started = time.monotonic()
    key = None if registry_key is None else here / registry_key
    with interruptible("nothing was changed"):
        if fetch:
            project.store.fetch_outputs(project.lock(run), forgotten_objects(project))
        before = busy.look(project.root)
        found = verify(project, run, progress=True, registry_key=key)
        if not links.all_hold(found):
            busy.check_at_rest(project.root, before)
        if not json_:
            typer.echo("\n".join(_table(found)))
            typer.echo(_verdict(run.name, found, seconds=time.monotonic() - started))
        rebuilt = _rebuild(project, run, quiet=json_) if reproduce else None
    if json_:
        typer.echo(_document(run, found, rebuilt))
    if not links.all_hold(found) or (rebuilt is not None and not rebuilt.identical):
        raise typer.Exit(1)


def _rebuild(project: "Project", run: "Run", *, quiet: bool) -> "Reproduction":
    from lineage.reproduce import reproduce

    rebuilt = reproduce(project, run, log=lambda line: typer.echo(line, err=quiet))
    if not quiet:
        typer.echo(rebuilt.summary())
    return rebuilt


def _document(run: "Run", found: list["Link"], rebuilt: "Reproduction | None") -> str:
    from lineage.links import all_hold
    from lineage.verification import Verification

    document = Verification(
        run=run.name,
        kind=run.kind,
        commit=run.commit,
        verified=all_hold(found),
        counts=Counter(link.status for link in found),
        links=found,
        reproduction=rebuilt,
    )
    return document.model_dump_json(indent=2)


def _table(found: list["Link"]) -> list[str]:
    """Return a line for each group, and below it one for each link that is not verified."""
    groups: dict[str, list[Link]] = {}
    for link in found:
        groups.setdefault(_group(link)[0], []).append(link)
    lines = []
    for name, links in groups.items():
        size = sum(link.bytes for link in links)
        unit = _group(links[0])[1]
        count = f"{len(links):>5} {unit if len(links) > 1 else unit.removesuffix('s')}"
        lines.append(f"{name:<12} {count:<16} {in_words(size) if size else '':>10}  {_statuses(links)}".rstrip())
        wrong = sorted((link for link in links if link.status != "verified"), key=lambda link: WORST.index(link.status))
        lines += [f"  {link.status.upper():<11} {link.name}: {link.detail}" for link in wrong[:LINES]]
        if len(wrong) > LINES:
            lines.append(f"  ... and {len(wrong) - LINES} more: `--json` has them all")
    return lines


def _group(link: "Link") -> tuple[str, str]:
    return GROUPS.get(link.kind) or (link.stage or link.kind, "files")


def _statuses(links: list["Link"]) -> str:
    counts = Counter(link.status for link in links)
    if counts["verified"] == len(links):
        return "verified"
    return ", ".join(f"{counts[status]} {status}" for status in WORST if counts[status])


def _verdict(name: str, found: list["Link"], *, seconds: float) -> str:
    counts = Counter(link.status for link in found)
    size = in_words(sum(link.bytes for link in found))
    worst = [status for status in WORST[:3] if counts[status]]
    if worst:
        others = "".join(f", {counts[status]} {status}" for status in worst[1:])
        verdict = f"{worst[0].upper()}: {counts[worst[0]]} of {len(found)} links of {name}{others}"
    else:
        forgotten = f", {counts['forgotten']} of them forgotten by decision" if counts["forgotten"] else ""
        verdict = f"verified: {name}, {len(found)} links{forgotten}"
    return f"{verdict}; {size} in {seconds:.1f} s"
