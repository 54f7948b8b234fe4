"""`pawline models`, `register`, `promote` and `rollback`: the versions of the classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.shared import enter_project, interruptible
from tasks.stage import PawlineError

if TYPE_CHECKING:
    from lineage.records import Lineage
    from lineage.runs import Project, Run
    from registry.ledger import Ledger
    from registry.records import Decision, VersionSummary

SHARE = "share it: `git push origin registry --tags` and `pawline push`"
GET = "`dvc artifacts get . classifier --stage champion` fetches it"
UNDECIDED = (
    "nothing is half done: what was begun takes effect with the next `pawline promote`, `register` or `rollback`"
)
SHOWN_ID = 10  # characters of a commit or key: enough to tell them apart
NONE = "-"

ReasonOption = Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="Why; it is kept with the decision.")]


def models_command(
    history: Annotated[bool, typer.Option("--history", help="Show the decisions instead.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print versions and decisions as JSON.")] = False,
) -> None:
    """List the registered versions, and which one is the champion.

    All is read from the branch `registry` and its tags: a fresh clone has it, without any key.

    \b
    Examples:
      pawline models                 the versions, the champion marked by *
      pawline models --history       who decided what, when and why
      pawline models --json          for scripts
    """  # noqa: D301 - \b keeps the lines of the examples apart
    enter_project()
    from lineage.runs import Project
    from registry import ledger
    from registry.records import RegistryContent

    project = Project(Path.cwd())
    if not project.has_history:
        raise PawlineError("versions are kept in git, and there is no git repository with a commit here: `git init`")
    book = ledger.load(project.root)
    versions = _versions(project, book)
    if json_:
        typer.echo(RegistryContent(versions=versions, decisions=book.decisions).model_dump_json(indent=2))
        return
    of_versions = [version.model_dump() for version in versions]
    rows = [_decision_row(decision) for decision in book.decisions] if history else of_versions
    if rows:
        typer.echo(table([list(rows[0]), *(_shown(row) for row in rows)]))
    for decision in book.without_effect():
        typer.echo(f"decision {decision.number} ({decision.action} {decision.version}) has no effect yet: {_resume()}")
    typer.echo(_next_step(rows))


def register_command(
    what: Annotated[
        str | None, typer.Argument(metavar="WHAT", help="Which run. Default: that of the workspace, committed.")
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Make a run the next version: v1.0.0, v2.0.0, ...

    Every file of the run is read and hashed, the classifier is signed, and its lineage, a model card and the decision
    go to the branch `registry`. The work tree is left alone.

    WHAT is a commit, an experiment, or a classifier's file (found by its content).

    \b
    Examples:
      pawline register                          what was committed last
      pawline register wide-head -m "the best of the sweep"
      pawline register HEAD~3
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import Project, find_from

    project = Project(Path.cwd())
    run = find_from(project, what, here)
    with interruptible(UNDECIDED):
        decision = _register(project, run, reason)
    typer.echo(f"next: `pawline promote {decision.version}`; {SHARE}")


def promote_command(
    what: Annotated[str, typer.Argument(metavar="VERSION", help="Which version; another run is registered first.")],
    reason: ReasonOption = "",
) -> None:
    """Make a version the champion.

    The decision is signed and put on record, then takes effect by a git tag, whole or not at all: until then the old
    champion is in force. The work tree is left alone.

    \b
    Examples:
      pawline promote v2 -m "fewer dogs taken for cats"
      pawline promote HEAD            register the last commit and promote it
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import Project, find_from
    from registry import champion, decisions, register

    project = Project(Path.cwd())
    decisions.check_place(project)
    champion.finish_pending(project)
    run = find_from(project, what, here)
    with interruptible(UNDECIDED):
        version = run if run.kind == "version" else register.find_registered(project, register.committed(project, run))
        if version is None:
            registered = _register(project, run, reason)
            version = find_from(project, registered.version, here)
        decision = champion.promote(project, version, reason=reason)
    typer.echo(_say_champion(version.name, decision))


def rollback_command(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="An earlier champion. Default: the one before.")
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Make an earlier champion the champion again.

    Once more goes one champion further back. The work tree is left alone.

    \b
    Examples:
      pawline rollback -m "v3 fails on the night shift"
      pawline rollback --to v1
    """  # noqa: D301 - \b keeps the lines of the examples apart
    here = enter_project()
    from lineage.runs import Project, find_from
    from registry import champion

    project = Project(Path.cwd())
    target = None
    if to is not None:
        champion.finish_pending(project)  # VERSION may be what an interrupted decision registered
        target = find_from(project, to, here)
    with interruptible(UNDECIDED):
        decision = champion.rollback(project, to=target, reason=reason)
    name = decision.version if decision is not None else target.name if target is not None else None
    typer.echo(_say_champion(name or "", decision))


def _register(project: "Project", run: "Run", reason: str) -> "Decision":
    from registry.ledger import load
    from registry.register import register

    decision = register(project, run, reason=reason)
    entry = load(project.root).entry(decision.version or "")
    accuracy = "" if entry is None else f", {_accuracy(entry.lineage)}"
    typer.echo(
        f"registered {decision.version}: commit {(decision.commit or '')[:SHOWN_ID]}{accuracy}; decision "
        f"{decision.number}, signed with the key {decision.key[:SHOWN_ID]}"
    )
    return decision


def _say_champion(name: str, decision: "Decision | None") -> str:
    if decision is None:
        return f"{name} is the champion already; {GET}"
    before = decision.details.get("before")
    instead = f" instead of {before}" if before else ""
    return f"{name} is the champion{instead}: decision {decision.number}\nnext: {GET}; {SHARE}"


def _resume() -> str:
    return "the next `pawline promote`, `register` or `rollback` finishes it"


def _next_step(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no version is registered yet: `pawline register` makes the last committed run v1.0.0"
    return f"next: `pawline promote VERSION`, `pawline compare V1 V2`; {SHARE}"


def _versions(project: "Project", book: "Ledger") -> list["VersionSummary"]:
    """Return what is shown of each version, the newest first."""
    from lineage.runs import champion, versions
    from registry.records import VersionSummary

    current = champion(project)
    registered = {decision.version: decision for decision in book.decisions if decision.action == "register"}
    forgotten = {
        name
        for decision in book.decisions
        if decision.action == "forget"
        for name in decision.details.get("versions", [])
    }
    summaries = []
    for version in reversed(versions(project)):
        decision, entry = registered.get(version.name), book.entry(version.name)
        notes = [] if entry is not None else ["a tag without an entry: not registered by pawline"]
        notes += ["forgotten photos: retrain"] if version.name in forgotten else []
        summary = VersionSummary(
            version=version.name,
            champion=version == current,
            date=None if decision is None else decision.time,
            commit=version.commit,
            **_facts(None if entry is None else entry.lineage),
            by=None if decision is None else decision.by,
            reason=None if decision is None else decision.reason,
            note="; ".join(notes) or None,
        )
        summaries.append(summary)
    return summaries


def _facts(lineage: "Lineage | None") -> dict[str, Any]:
    metrics = (lineage.metrics if lineage is not None else None) or {}
    counts = lineage.counts if lineage is not None else None
    return {
        "split": metrics.get("split"),
        "accuracy": metrics.get("accuracy"),
        "interval": metrics.get("accuracy_interval"),
        "photos": None if counts is None else counts.kept,
    }


def _decision_row(decision: "Decision") -> dict[str, Any]:
    return {
        "number": decision.number,
        "date": decision.time,
        "decision": decision.action,
        "version": f"key {decision.details.get('key')!s:.{SHOWN_ID}}"
        if decision.action == "admit"
        else decision.version,
        "by": decision.by,
        "reason": decision.reason,
    }


def _accuracy(lineage: "Lineage") -> str:
    metrics = lineage.metrics or {}
    if "accuracy" not in metrics:
        return "accuracy unknown"
    return f"{metrics['split']} accuracy {cell(metrics['accuracy'])} ({cell(metrics['accuracy_interval'])})"


def _shown(row: dict[str, Any]) -> list[str]:
    """Return a row of the table, without what nobody reads there: seconds, addresses, most of a commit's id."""
    shorter = {"date": 16, "commit": SHOWN_ID}
    short = {key: value[: shorter[key]] if key in shorter and value else value for key, value in row.items()}
    short |= {"date": (short["date"] or "").replace("T", " "), "by": (short["by"] or "").partition(" <")[0]}
    return [cell(value) for value in short.values()]


def cell(value: object) -> str:
    """Return a value for a table."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "*" if value else ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).split())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text, each column as wide as it needs to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
