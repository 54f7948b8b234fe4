"""Which version is the champion: promoting one, rolling back to one before, and finishing what was interrupted."""

from typing import Any

from lineage import git
from lineage.runs import ARTIFACT, CHAMPION, MODEL_PATH, Project, Run, champion
from registry.decisions import Plan, decide, deciding, load_key
from registry.ledger import Ledger, load
from registry.records import Action, Decision, Entry, Verdict
from tasks.stage import PawlineError


def promote(project: Project, version: Run, *, reason: str, verdict: Verdict | None = None) -> Decision | None:
    """Make a version the champion. The work tree is left alone.

    Args:
        project: The checkout.
        version: A registered version.
        reason: Why, in the decider's words; may be empty.
        verdict: What the gate said of it; kept with the decision.

    Returns:
        The decision; None if that version is the champion already.

    Raises:
        PawlineError: It is no version, the decision cannot be made, or the verdict is against it, about another model,
            or about a champion that was replaced meanwhile.
    """
    with deciding(project):
        return _make_champion(project, version, "promote", reason, verdict)


def rollback(project: Project, *, to: Run | None, reason: str) -> Decision | None:
    """Make an earlier champion the champion again. The work tree is left alone.

    Args:
        project: The checkout.
        to: Which; None is the one before the current one.
        reason: Why, in the decider's words; may be empty.

    Returns:
        The decision: the interrupted rollback that was just finished, if that was the last decision and `to` is None.
        None if `to` is the champion already.

    Raises:
        PawlineError: There was no champion before, or `to` never was.
    """
    with deciding(project) as finished:
        book = load(project.root)
        if to is None and finished and finished[-1].action == "rollback" and finished[-1] == book.decisions[-1]:
            return finished[-1]
        line = champions(book)
        if to is None and len(line) < 2:
            raise PawlineError("there is no champion before the current one: `pawline models --history` has them all")
        name = line[-2] if to is None else to.name
        if name not in line:
            raise PawlineError(f"{name} was no champion before this one: `pawline promote {name}` makes it one")
        target = to or _version(book, name)
        return _make_champion(project, target, "rollback", reason)


def finish_pending(project: Project) -> list[Decision]:
    """Let interrupted decisions take effect, and return them.

    Raises:
        PawlineError: The commit that one is about is not here.
    """
    with deciding(project) as finished:
        return finished


def champions(book: Ledger) -> list[str]:
    """Return the line of champions, the current one last: a promotion adds one, a rollback takes the later ones off."""
    line: list[str] = []
    for decision in book.decisions:
        if decision.action == "promote" and decision.version is not None:
            line.append(decision.version)
        elif decision.action == "rollback" and decision.version in line:
            del line[len(line) - line[::-1].index(decision.version) :]
    return line


def _make_champion(
    project: Project, version: Run, action: Action, reason: str, verdict: Verdict | None = None
) -> Decision | None:
    book = load(project.root)
    entry = book.entry(version.name)
    if entry is None:
        raise PawlineError(f"{version.name} is no version: `pawline models` lists them, `pawline register` makes one")
    current = champion(project)
    if current is not None and current.name == version.name:
        return None
    tag = f"{ARTIFACT}#{CHAMPION}#{_next_number(project)}"
    key = load_key(book)
    details: dict[str, Any] = {"before": None if current is None else current.name}
    if verdict is not None:
        _check_verdict(verdict, entry, details["before"])
        details["gate"] = verdict.model_dump(mode="json")
    return decide(book, Plan(action, version.name, version.commit, tag, reason, details=details), key)


def _check_verdict(verdict: Verdict, entry: Entry, champion_name: str | None) -> None:
    """Make sure that a verdict speaks for a version, and of the champion that is in force."""
    if not verdict.promote:
        raise PawlineError(f"the gate refused {entry.version}: `pawline promote {entry.version}` overrules it")
    if verdict.challenger.sha256 != entry.sha256[MODEL_PATH]:
        raise PawlineError(
            f"the gate judged another model than {entry.version}: `pawline retrain --force` compares anew"
        )
    compared = None if verdict.champion is None else verdict.champion.name
    if compared != champion_name:
        raise PawlineError(
            f"{champion_name or 'no version'} is the champion by now, and {entry.version} was compared with "
            f"{compared or 'none'}: `pawline retrain --force` compares anew"
        )


def _next_number(project: Project) -> int:
    prefix = f"{ARTIFACT}#{CHAMPION}#"
    numbers = [tag.removeprefix(prefix) for tag in git.tags(project.root, f"{prefix}*")]
    return max((int(number) for number in numbers if number.isdigit()), default=0) + 1


def _version(book: Ledger, name: str) -> Run:
    entry = book.entry(name)
    if entry is None:
        raise PawlineError(f"tampered: the registry has no entry of {name}; `pawline verify`")
    return Run(name, "version", entry.commit)
