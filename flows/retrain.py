"""Retraining as a Prefect flow: look for news, train a challenger apart, and promote it only if it beats the champion.

The run happens in a git worktree of what is committed (flows/worktree.py), so nobody's working tree is touched. The
champion changes in the very last step; a run that fails before leaves it alone.
"""

import logging
import shutil
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Completed

from flows import (
    artifacts,
    cancelling,
    dvc_graph,
    experiments,
    liveness,
    presets,
    report_context,
    sharing,
    turns,
    worktree,
)
from flows.pipeline import pipeline
from flows.stage_process import StoppedError
from flows.turns import Overlap
from lineage import git
from lineage.lockfile import load_yaml
from lineage.rebuild import link_outside_files
from lineage.runs import Project, Run, champion, find_from
from lineage.why import explain
from lineage.why_reasons import Reason
from lineage.words import first_of
from registry import contest, decisions, ledger
from registry.champion import finish_pending, promote
from registry.gate import summary, verdict_markdown
from registry.gate_page import write_page
from registry.ledger import Ledger
from registry.records import Verdict
from registry.register import find_registered, register
from tasks.params import GateParams, load_section
from tasks.stage import PawlineError

SKIPPED, UNCHANGED, REFUSED, PROMOTED = "Skipped", "Unchanged", "Refused", "Promoted"  # how a retraining ends
LAST_RUN = "refs/pawline/retrained"  # the commit of the last retraining that came to an end
VALIDATION_DIR = Path("reports/validation")
NEWS = ("never_ran", "command", "parameter", "code", "input")  # of `pawline why`'s reasons, those that are about inputs
CHAMPION_RESOURCE = "pawline.champion"
MOST_NAMED = 3  # changed inputs, parameters or code files in the log; `pawline lineage` has them all

logger = logging.getLogger(__name__)


@flow
def retrain(
    *,
    force: bool = False,
    preset: str | None = None,
    overrides: dict[str, Any] | None = None,
    overlap: Overlap = "wait",
) -> State[None]:
    """Retrain the project in the current folder on what is there now.

    Args:
        force: Train and compare even if photos, parameters and code are those of the last retraining.
        preset: Settings of a preset, over the committed params.yaml.
        overrides: Single settings over that, by dotted key, such as `train_head.epochs`.
        overlap: What to do while another retraining is at work: `wait` for it, or `skip`.

    Returns:
        A state: `Skipped`, `Unchanged`, `Refused` or `Promoted`, with the reason as its message; or `Cancelled`.

    Raises:
        PawlineError: Something is missing, or a stage failed; the champion is the one it was.
    """
    project = Project(Path.cwd())
    check_ready(project)
    turn = turns.taken(project.root, overlap, cancelling.check_now_and_then())
    with liveness.noted(), suppress(StoppedError, CancelledRun), turn as no_turn:
        if no_turn is not None:
            return _ended(SKIPPED, no_turn)
        cancelling.check()
        finish_pending(project)  # while it waited, somebody may have decided, or forgotten a photo
        _check_forgotten(project, ledger.load(project.root))
        commit = git.find_commit(project.root, "HEAD") or ""
        lock = _last_lock(project)
        sharing.pull_missing(project, lock or git.read_file(project.root, commit, "dvc.lock"))
        with worktree.opened(project, commit, lock) as folder:
            settings = (preset, overrides or {})
            ended = _challenge(project, commit, folder, force=force, is_first=lock is None, settings=settings)
        return sharing.push_promoted(project, ended) if ended.name == PROMOTED else ended
    return Cancelled(message="the champion is the one it was; the next retraining carries on from here")


def check_ready(project: Project) -> None:
    """Find out before anything is trained whether the champion could be replaced, and what would not be part of it.

    Decisions that were fetched without their tags take effect first: it is the champion in force that counts.

    Raises:
        PawlineError: The project has no git history, git does not know who decides, something in the registry does not
            count, a decision is about a commit that is not here, the user's key does not count, or a forgotten photo
            would be taken again.
    """
    decisions.check_place(project)
    decisions.identity(project.root)
    finish_pending(project)
    book = ledger.load(project.root)
    decisions.load_key(book)
    _check_forgotten(project, book)
    changed = git.git(project.root, "diff", "--name-only", "-z", "HEAD").decode(errors="backslashreplace").split("\0")
    changed = [name for name in changed if name and name != "dvc.lock"]
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        logger.warning(
            "retraining takes what is committed; changed since, and left out: %s%s", ", ".join(changed[:4]), more
        )


def _check_forgotten(project: Project, book: Ledger) -> None:
    """Make sure that what was forgotten is kept out by what is committed, too."""
    forgotten = {image for each in book.decisions if each.action == "forget" for image in each.details.get("ids", [])}
    committed = git.read_file(project.root, "HEAD", "params.yaml") or b""
    kept_out = load_yaml(committed, origin="params.yaml").get("data", {}).get("forget") or [] if forgotten else []
    missing = sorted(forgotten.difference(kept_out))
    if missing:
        raise PawlineError(
            f"forgotten, and not kept out by data.forget of the committed params.yaml: "
            f"{first_of([image[:10] for image in missing], MOST_NAMED)}; `git commit params.yaml`"
        )


def find_news(folder: Path) -> list[Reason]:
    """Return how photos, parameters and code in the current folder differ from those of its dvc.lock."""
    reasons = [reason for stage in explain(Project(folder)).stages for reason in stage.reasons if reason.kind in NEWS]
    # An output that DVC's cache has lost is no news.
    return [reason for reason in reasons if reason.kind != "input" or (folder / reason.about).exists()]


def _challenge(
    project: Project,
    commit: str,
    folder: Path,
    *,
    force: bool,
    is_first: bool,
    settings: tuple[str | None, dict[str, Any]],
) -> State[None]:
    """Train in the worktree, and let the result stand against the champion, if there is one."""
    preset, overrides = settings
    name = experiments.free_name("retrain", also_taken=[path.name for path in worktree.REPORTS_DIR.glob("*")])
    link_outside_files(project.root.resolve(), folder, presets.apply_settings({}, overrides))
    with chdir(folder):
        pipeline(dvc_graph.always_run(), preset=preset, overrides=overrides)  # looks at the photos again
        news = find_news(folder)
        if not news and not force and not is_first:
            return _ended(UNCHANGED, "photos, parameters and code are those of the last retraining: nothing to train")
        why = _in_short(news) or ("there is no champion yet" if is_first else "nothing is new, but it was forced")
        logger.info("%s: %s", name, why)
        pipeline()
    run = worktree.keep_run(project, folder, base=commit, name=name, message=f"Retrain: {why}")
    verdict = judge(project, run, folder)
    cancelling.check()
    state = _decide(project, run, verdict)
    git.point(project.root, LAST_RUN, run.commit or "")
    return state


@task(task_run_name="gate", description="champion against challenger, on the same test photos", cache_policy=NO_CACHE)
def judge(project: Project, run: Run, folder: Path) -> Verdict:
    """Compare the challenger with the champion, and show the verdict: on Prefect's page and in reports/retrain/."""
    rules = load_section(folder / "params.yaml", "gate", GateParams)
    result = contest.hold(project, champion=champion(project), challenger=folder, name=run.name, rules=rules)
    reports = project.root / worktree.REPORTS_DIR / run.name
    reports.mkdir(parents=True, exist_ok=True)
    context = report_context.collect(Project(folder), latency_ms={})
    if result.verdict.promote and result.verdict.champion is not None and context["against"] is not None:
        context["against"]["kind"] = report_context.FORMER_CHAMPION
    context["verdict"] = {"promoted": result.verdict.promote, "text": summary(result.verdict)}
    report_context.draw(context, folder, reports / "report.html")
    shutil.copytree(folder / VALIDATION_DIR, reports / VALIDATION_DIR.name, dirs_exist_ok=True)  # it links to that
    write_page(result, reports)
    artifacts.publish_verdict(verdict_markdown(result.verdict))
    artifacts.publish_report(reports / "gate.html", f"{run.name}: champion against challenger", key="comparison")
    artifacts.publish_report(reports / "report.html", f"{run.name}: the report")
    return result.verdict


def _decide(project: Project, run: Run, verdict: Verdict) -> State[None]:
    message, page = summary(verdict), f"see {worktree.REPORTS_DIR / run.name}/gate.html"
    if not verdict.promote:
        _tell("pawline.refused", run.name, f"{run.name}: {message}; {page}")
        return _ended(REFUSED, f"{run.name}: {message}; {page}")
    version = _version_of(project, run, message)
    promote(project, version, reason=message, verdict=verdict)
    message = f"{version.name} ({run.name}) is the champion: {message}; {page}"
    _tell("pawline.promoted", version.name, message)
    return _ended(PROMOTED, message)


def _version_of(project: Project, run: Run, reason: str) -> Run:
    """Return the version of a run, registered before (by a retraining that was interrupted) or now."""
    known = find_registered(project, run.commit or "")
    if known is not None:
        return known
    decision = register(project, run, reason=reason)
    return find_from(project, decision.version, project.root)


def _last_lock(project: Project) -> bytes | None:
    """Return the dvc.lock of the last retraining, or else the champion's: what is new is new since then.

    None if there is neither.
    """
    commit = git.find_commit(project.root, LAST_RUN)
    last = Run("the last retraining", "commit", commit) if commit is not None else champion(project)
    return None if last is None else project.read(last, "dvc.lock")


def _in_short(news: list[Reason]) -> str:
    """Return what is new in one line, such as `new: input data/source.json; parameter data.path, features.views`.

    Nothing if nothing is.
    """
    kinds: dict[str, list[str]] = {reason.kind.replace("_", " "): [] for reason in news}
    for reason in news:
        kinds[reason.kind.replace("_", " ")].append(reason.about)
    parts = [f"{kind} {first_of(list(dict.fromkeys(about)), MOST_NAMED)}" for kind, about in kinds.items()]
    return f"new: {'; '.join(parts)}" if parts else ""


def _tell(event: str, name: str, text: str) -> None:
    """Emit an event, which automations can react to."""
    resource = {"prefect.resource.id": CHAMPION_RESOURCE, "prefect.resource.name": name}
    emit_event(event, resource=resource, payload={"text": text})


def _ended(name: str, message: str) -> State[None]:
    logger.info("%s: %s", name.lower(), message)
    return Completed(name=name, message=message)
