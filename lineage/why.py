"""Why a stage would run, or not, if `dvc repro` were typed now.

Whether something changed is DVC's own judgement (`dvc status`); what changed is found by comparing `dvc.lock`, which
has the last run of every stage, with the parameters, code and data that are there now.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lineage import lockfile
from lineage.lockfile import LockedStage
from lineage.records import Record
from lineage.runs import WORKSPACE, Project
from lineage.store import dvc_errors
from lineage.why_reasons import Reason, Reasons
from tasks.stage import PawlineError

Verdict = Literal["runs", "restored", "depends", "skipped"]
HEADLINES: dict[Verdict, str] = {
    "runs": "will run",
    "restored": "would be restored from DVC's run cache, not run",
    "depends": "will run if its inputs come out different",
    "skipped": "would not run",
}
COMES: dict[Verdict, str] = {  # how an input comes about before the stage that reads it
    "runs": "will be made anew by",
    "restored": "will be restored by",
    "depends": "may be made anew by",
}


class StageWhy(Record):
    """What `dvc repro` would do with a stage.

    Attributes:
        stage: Its name.
        verdict: `runs`; `restored`, from DVC's run cache; `depends`, on whether the stages before it give other bytes
            than those it read last; `skipped`.
        reasons: Of a skipped stage none.
        unchanged: Of a skipped stage, what is as in its last run, in words.
    """

    stage: str
    verdict: Verdict
    reasons: list[Reason]
    unchanged: str | None

    def line(self) -> str:
        """Return it in one line."""
        if not self.reasons:
            return f"{self.stage} {HEADLINES[self.verdict]}: nothing changed since its last run"
        more = f" (and {len(self.reasons) - 1} more: `pawline why {self.stage}`)" if len(self.reasons) > 1 else ""
        return f"{self.stage} {HEADLINES[self.verdict]}: {self.reasons[0].text}{more}"

    def lines(self) -> list[str]:
        """Return it with every reason and its details."""
        lines = [f"{self.stage} {HEADLINES[self.verdict]}:{f' {self.unchanged}' if self.unchanged else ''}"]
        for reason in self.reasons:
            lines += [f"  {reason.text}", *(f"    {detail}" for detail in reason.details)]
        return lines


class Why(Record):
    """What `dvc repro` would do, stage by stage in its order."""

    nothing_ran: bool
    stages: list[StageWhy]

    def stage(self, name: str) -> StageWhy:
        """Return one stage.

        Raises:
            PawlineError: There is none of that name.
        """
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise PawlineError(f"unknown stage {name}: dvc.yaml has {', '.join(stage.stage for stage in self.stages)}")

    def lines(self) -> list[str]:
        """Return a line a stage."""
        if self.nothing_ran:
            return [f"nothing ran yet: `dvc repro` runs all {len(self.stages)} stages"]
        return [stage.line() for stage in self.stages]


def explain(project: Project) -> Why:
    """Explain every stage; the current folder must be the project's, since DVC's paths are relative to it.

    Raises:
        PawlineError: DVC cannot read the project, or is at work in it.
    """
    content = project.read(WORKSPACE, "dvc.lock")
    lock = {} if content is None else lockfile.parse_lock(content)
    seen = _look(project.root)
    explainer = _Explainer(Reasons(project, lock), seen)
    return Why(nothing_ran=not lock, stages=[explainer.explain(name) for name in seen.commands])


@dataclass(frozen=True)
class _Seen:
    """What DVC sees: the command of each stage, in its order; what changed; what its run cache has."""

    commands: dict[str, str]
    status: dict[str, list[Any]]
    restorable: frozenset[str]


def _look(root: Path) -> _Seen:
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with dvc_errors(), Repo(str(root)) as repo:
        stages = {stage.addressing: stage for stage in plan_repro(get_active_graph(repo.index.graph))}
        status = repo.status()
        restorable = frozenset(name for name in status if _is_restorable(stages[name]))
        return _Seen({name: str(stage.cmd) for name, stage in stages.items()}, status, restorable)


def _is_restorable(stage: Any) -> bool:  # noqa: ANN401 - DVC ships no types
    """Say whether DVC's run cache has what the stage would write from what it would read now."""
    from dvc.dependency.param import MissingParamsError
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc_data.hashfile.hash_info import HashInfo

    if not all(dep.exists for dep in stage.deps):
        return False
    try:
        if not stage.deps_cached():  # which means: they changed
            # In memory only. By itself a dry `restore` looks for what the stage read last time, and finds that.
            stage.save_deps()
            for out in stage.outs:
                out.hash_info = HashInfo()
        stage.repo.stage_cache.restore(stage, dry=True)
    except (RunCacheNotFoundError, MissingParamsError):
        return False
    return True


class _Explainer:
    """Explains one stage after the other, each after those it depends on."""

    def __init__(self, reasons: Reasons, seen: _Seen) -> None:
        self._reasons, self._seen = reasons, seen
        self._made_by = lockfile.producers(reasons.lock)
        self._changing: dict[str, tuple[Verdict, str]] = {}  # what writes its outputs anew, or may, and why

    def explain(self, name: str) -> StageWhy:
        """Explain a stage."""
        stage = self._reasons.lock.get(name)
        if stage is None:
            never = Reason(kind="never_ran", about=name, text="it never ran here (dvc.lock has no run of it)")
            return self._conclude(name, [never], [])
        upstream = self._upstream(stage)
        awaited = {reason.about for reason in upstream}
        found = self._reasons.find(stage, self._seen.status.get(name, []), self._seen.commands[name])
        own = [reason for reason in found if reason.about not in awaited]
        return self._conclude(name, own, upstream)

    def _conclude(self, name: str, own: list[Reason], upstream: list[Reason]) -> StageWhy:
        verdict: Verdict = "runs" if own else "depends" if upstream else "skipped"
        if own and not upstream and name in self._seen.restorable:
            verdict = "restored"
        changes = [reason for reason in own if reason.kind != "always"]
        if changes:
            self._changing[name] = verdict, f"{changes[0].text}{_and_more(changes)}"
        elif upstream:
            _, root = self._changing[self._made_by[upstream[0].about]]
            self._changing[name] = "depends", root
        unchanged = self._unchanged(self._reasons.lock[name]) if verdict == "skipped" else None
        return StageWhy(stage=name, verdict=verdict, reasons=[*own, *upstream], unchanged=unchanged)

    def _upstream(self, stage: LockedStage) -> list[Reason]:
        """Return the inputs that will be written anew before, or may be; the certain ones first."""
        inputs = [(dep.path, self._made_by[dep.path]) for dep in stage.deps if dep.path in self._made_by]
        coming = [(path, maker, *self._changing[maker]) for path, maker in inputs if maker in self._changing]
        return [
            Reason(kind="upstream", about=path, text=f"{path} {comes} {maker}, because {root}")
            for certainty, comes in COMES.items()
            for path, maker, verdict, root in coming
            if verdict == certainty
        ]

    def _unchanged(self, stage: LockedStage) -> str:
        code = sum(dep.files or 1 for dep in stage.deps if dep.path not in self._made_by)
        inputs = sum(dep.path in self._made_by for dep in stage.deps)
        counts = {"code file": code, "input": inputs, "parameter": len(stage.params)}
        parts = ["its command", *(f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items() if n)]
        return f"{', '.join(parts[:-1])} and {parts[-1]} are as in its last run (dvc.lock), its outputs untouched"


def _and_more(changes: list[Reason]) -> str:
    return f" and {len(changes) - 1} more" if len(changes) > 1 else ""
