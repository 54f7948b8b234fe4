"""Which version is the champion: promoting one, rolling back to one before, and finishing what was interrupted."""

from lineage import git
from lineage.runs import ARTIFACT, CHAMPION, Project, Run, champion
from registry.decisions import Plan, decide, deciding, load_key
from registry.ledger import Ledger, load
from registry.records import Action, Decision
from tasks.stage import PawlineError


def promote(project: Project, version: Run, *, reason: str) -> Decision | None:
    """Make a version the champion. The work tree is left alone.

    Args:
        project: The checkout.
        version: A registered version.
        reason: Why, in the decider's words; may be empty.

    Returns:
        The decision; None if that version is the champion already.

    Raises:
        PawlineError: It is no version, or the decision cannot be made.
    """
    with deciding(project):
        return _make_champion(project, version, "promote", reason)


def rollback(project: Project, *, to: Run | None, reason: str) -> Decision | None:
    """Make an earlier champion the champion again. The work tree is left alone.

    Args:
        project: The checkout.
        to: Which; None is the one before the current one.
        reason: Why, in the decider's words; may be empty.

    Returns:
        The decision: an interrupted rollback that was just finished, if there was one and `to` is None. None if `to` is
        the champion already.

    Raises:
        PawlineError: There was no champion before, or `to` never was.
    """
    with deciding(project) as finished:
        rolled_back = [decision for decision in finished if decision.action == "rollback"]
        if to is None and rolled_back:
            return rolled_back[-1]
        line = champions(load(project.root))
        if to is None and len(line) < 2:
            raise PawlineError("there is no champion before the current one: `pawline models --history` has them all")
        name = line[-2] if to is None else to.name
        if name not in line:
            raise PawlineError(f"{name} was no champion before this one: `pawline promote {name}` makes it one")
        target = to or _version(load(project.root), name)
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


def _make_champion(project: Project, version: Run, action: Action, reason: str) -> Decision | None:
    book = load(project.root)
    if book.entry(version.name) is None:
        raise PawlineError(f"{version.name} is no version: `pawline models` lists them, `pawline register` makes one")
    current = champion(project)
    if current is not None and current.name == version.name:
        return None
    tag = f"{ARTIFACT}#{CHAMPION}#{_next_number(project)}"
    key = load_key(book)
    details = {"before": None if current is None else current.name}
    return decide(book, Plan(action, version.name, version.commit, tag, reason, details=details), key)


def _next_number(project: Project) -> int:
    prefix = f"{ARTIFACT}#{CHAMPION}#"
    numbers = [tag.removeprefix(prefix) for tag in git.tags(project.root, f"{prefix}*")]
    return max((int(number) for number in numbers if number.isdigit()), default=0) + 1


def _version(book: Ledger, name: str) -> Run:
    entry = book.entry(name)
    if entry is None:
        raise PawlineError(f"tampered: the registry has no entry of {name}; `pawline verify`")
    return Run(name, "version", entry.commit)
