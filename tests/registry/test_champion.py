"""Promoting and rolling back: as GTO and DVC see it, and killed at every step."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows.cli import app
from lineage.records import Artifact, EnvironmentRecord, Lineage, SourceRecord
from lineage.runs import MODEL_PATH, Project, Run, find_run
from lineage.runs import champion as current_champion
from lineage.schemas import schema
from lineage.store import file_md5
from registry import champion, register
from registry.champion import champions, finish_pending, promote, rollback
from registry.decisions import Plan, decide, deciding, load_key
from registry.gate import Entrant, Tally, judge
from registry.ledger import load
from registry.records import Answers, Entry, Verdict
from registry.signing import KEY_VARIABLE
from tasks.params import check_params
from tasks.stage import PawlineError
from tests.conftest import ROOT
from tests.registry.test_branch import git, make_repository

TOOLS = Path(sys.executable).parent
WRITING = ("hash-object", "mktree", "commit-tree", "update-ref", "mktag")
# Stands before git on the PATH: kills the process group, which is the command's own, before or after the n-th call
# that writes something. COUNT is a file.
KILLING_GIT = """\
#!/bin/sh
case "$1" in
{writing}) n=$(($(cat "$COUNT") + 1)); echo $n > "$COUNT" ;;
*) n=0 ;;
esac
test "$n" = "$KILL_BEFORE" && kill -9 0
{git} "$@"
code=$?
test "$n" = "$KILL_AFTER" && kill -9 0
exit $code
"""


@pytest.fixture
def project(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return Project(three_runs)


@pytest.fixture
def small_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A repository without the files of a run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return Project(make_repository(tmp_path / "here"))


def version(project: Project, name: str) -> Run:
    return find_run(project, name)


def champion_name(project: Project) -> str | None:
    run = current_champion(project)
    return None if run is None else run.name


def test_the_champion_as_pawline_gto_and_dvc_see_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git(project.root, "status", "--porcelain=v2", "--branch")
    for revision in ("HEAD~2", "HEAD~1", "HEAD"):
        register.register(project, find_run(project, revision), reason="a version")
    started = time.monotonic()
    for name in ("v1", "v2", "v3", "v1"):
        decision = promote(project, version(project, name), reason=f"try {name}")
        assert decision is not None
        assert champion_name(project) == f"{name}.0.0"
    assert promote(project, version(project, "v1"), reason="again") is None
    assert len(load(project.root).decisions) == 7
    undone = [rollback(project, to=None, reason="worse") for _ in range(2)]
    assert [decision and decision.version for decision in undone] == ["v3.0.0", "v2.0.0"]
    decisions = load(project.root).decisions
    assert len({decision.time for decision in decisions}) == 9
    if time.monotonic() - started < 5:  # then some were made in one second
        ahead = datetime.fromisoformat(decisions[-1].time).timestamp() - time.time()
        assert ahead > 0
    assert decisions[-1].details == {"before": "v3.0.0"}
    assert decisions[-1].tag == "classifier#champion#6"
    assert shown_by_gto(project) == {"latest": "v3.0.0", "champion": "v2.0.0"}
    for option, revision in ((("--stage", "champion"), "HEAD~1"), (("--rev", "v1.0.0"), "HEAD~2")):
        out = tmp_path / revision
        run_tool("dvc", "artifacts", "get", project.root, "classifier", *option, "--out", out, folder=tmp_path)
        assert file_md5(out) == project.store.find_md5(project.lock(find_run(project, revision)), MODEL_PATH)
    assert git(project.root, "status", "--porcelain=v2", "--branch") == before

    target = version(project, "v3")
    with pytest.raises(PawlineError, match=r"v3\.0\.0 was no champion before this one: `pawline promote v3\.0\.0`"):
        rollback(project, to=target, reason="")
    assert rollback(project, to=version(project, "v2"), reason="") is None
    assert champions(load(project.root)) == ["v1.0.0", "v2.0.0"]
    assert rollback(project, to=version(project, "v1"), reason="") is not None
    with pytest.raises(PawlineError, match="there is no champion before the current one"):
        rollback(project, to=None, reason="")
    with pytest.raises(PawlineError, match="HEAD is no version: `pawline models` lists them"):
        promote(project, find_run(project, "HEAD"), reason="")

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    look_from_a_clone(project, tmp_path)


def shown_by_gto(project: Project) -> dict[str, str]:
    shown = json.loads(run_tool("gto", "show", "--json", "--repo", project.root, folder=project.root))
    facts = shown["classifier"]
    return {"latest": facts["version"], "champion": facts["stage"]["champion"]}


def run_tool(name: str, *arguments: str | Path, folder: Path) -> str:
    command = [str(TOOLS / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def look_from_a_clone(project: Project, tmp_path: Path) -> None:
    """A clone without any key reads all of it; tags that were not pushed are made again, the same."""
    git(project.root, "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert champion_name(clone) == "v1.0.0"
    assert load(clone.root).decisions == load(project.root).decisions
    tags = git(clone.root, "for-each-ref", "refs/tags")
    git(clone.root, "tag", "--delete", *git(clone.root, "tag").split())
    assert champion_name(clone) is None
    assert [decision.number for decision in finish_pending(clone)] == list(range(1, 11))
    assert git(clone.root, "for-each-ref", "refs/tags") == tags
    assert not (tmp_path / "nobody").exists()


def entry(name: str, commit: str) -> Entry:
    """A version's entry that says as little as it may."""
    facts: dict[str, Any] = dict.fromkeys(("version", "commit", "counts", "weights", "metrics"))
    nothing: dict[str, Any] = dict.fromkeys(("python", "machine", "threads", "engine", "precision", "lock_file"))
    lineage = Lineage(
        **facts,
        name=name,
        kind="version",
        uncommitted=[],
        model=Artifact(path=MODEL_PATH, md5="0", bytes=1),
        stages=[],
        source=SourceRecord(params={}, fingerprint=None),
        environment=EnvironmentRecord(**nothing, processor_features=[], packages={}),
        missing=[],
    )
    return Entry(version=name, commit=commit, sha256={MODEL_PATH: sha256(name.encode()).hexdigest()}, lineage=lineage)


def put_on_record(project: Project, name: str) -> None:
    """Register the last commit, without the files of a run."""
    with deciding(project):
        book, commit = load(project.root), git(project.root, "rev-parse", "HEAD")
        files = {f"versions/{name}/entry.json": entry(name, commit).model_dump_json().encode()}
        decide(book, Plan("register", name, commit, f"classifier@{name}", "", files), load_key(book))


def test_a_rollback_that_arrived_without_its_tag_is_not_the_one_that_is_asked_for(small_project: Project) -> None:
    project = small_project
    for name in ("v1.0.0", "v2.0.0", "v3.0.0"):
        put_on_record(project, name)
        git(project.root, "commit", "--quiet", "--allow-empty", "--message", "Go on")
    for name in ("v1", "v2"):
        promote(project, version(project, name), reason="")
    assert rollback(project, to=None, reason="v2 is bad") is not None
    promote(project, version(project, "v3"), reason="")
    # As in a clone of somebody who pushed the branch and not the tags.
    git(project.root, "tag", "--delete", *git(project.root, "tag").split())
    decision = rollback(project, to=None, reason="v3 is bad")
    assert decision is not None
    assert (decision.version, decision.reason, decision.details) == ("v1.0.0", "v3 is bad", {"before": "v3.0.0"})
    assert champion_name(project) == "v1.0.0"
    git(project.root, "tag", "--delete", decision.tag or "")
    assert rollback(project, to=None, reason="once more") == decision, "it was interrupted"


def verdict_for(project: Project, name: str, against: str | None, **changes: object) -> Verdict:
    """A verdict of the gate in favour of a version."""
    entry = load(project.root).entry(version(project, name).name)
    assert entry is not None
    answers = Answers(both_right=60, only_challenger=7, only_champion=0, both_wrong=0)
    challenger = Entrant("retrain-1", entry.sha256[MODEL_PATH], 9_700_000, 20.0)
    champion = None if against is None else Entrant(against, "a" * 64, 9_700_000, 20.0)
    rules = check_params(ROOT / "params.yaml").gate
    verdict = judge(Tally("test", 0, answers, []), champion=champion, challenger=challenger, rules=rules)
    return verdict.model_copy(update=changes)


def test_the_gates_verdict_is_signed_with_the_decision(
    small_project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = small_project
    for name in ("v1.0.0", "v2.0.0", "v3.0.0"):
        put_on_record(project, name)
        git(project.root, "commit", "--quiet", "--allow-empty", "--message", "Go on")
    first = verdict_for(project, "v1", None)
    decision = promote(project, version(project, "v1"), reason="the first", verdict=first)
    assert decision is not None
    assert decision.details == {"before": None, "gate": first.model_dump(mode="json")}
    second = verdict_for(project, "v2", "v1.0.0")
    for verdict, message in (
        (
            verdict_for(project, "v2", "v1.0.0", promote=False),
            r"the gate refused v2\.0\.0: `pawline promote v2\.0\.0` over",
        ),
        (verdict_for(project, "v3", "v1.0.0"), r"the gate judged another model than v2\.0\.0: `pawline retrain"),
        (verdict_for(project, "v2", None), r"v1\.0\.0 is the champion by now, and v2\.0\.0 was compared with none"),
    ):
        with pytest.raises(PawlineError, match=message):
            promote(project, version(project, "v2"), reason="", verdict=verdict)
    promote(project, version(project, "v3"), reason="by hand, meanwhile")
    with pytest.raises(
        PawlineError, match=r"^v3\.0\.0 is the champion by now, and v2\.0\.0 was compared with v1\.0\.0: "
    ):
        promote(project, version(project, "v2"), reason="", verdict=second)
    assert len(load(project.root).decisions) == 5

    promote(project, version(project, "v2"), reason="better", verdict=verdict_for(project, "v2", "v3.0.0"))
    stored = load(project.root).decisions[-1]
    assert Verdict.model_validate(stored.details["gate"]) == verdict_for(project, "v2", "v3.0.0")
    content = git(project.root, "show", "registry:decisions/0006.json")
    assert content.strip() == stored.model_dump_json(indent=2)
    jsonschema.Draft202012Validator(schema("decision")).validate(json.loads(content))
    jsonschema.Draft202012Validator(schema("verdict")).validate(stored.details["gate"])
    capsys.readouterr()
    (project.root / "dvc.yaml").touch()
    monkeypatch.chdir(project.root)
    app(["models", "--history"], standalone_mode=False)
    assert "promote" in capsys.readouterr().out
    app(["models", "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert document["decisions"][-1]["details"]["gate"]["promote"] is True


@pytest.fixture
def killing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a git on the PATH that kills."""
    script = tmp_path / "killing" / "git"
    script.parent.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    script.write_text(KILLING_GIT.format(git=real, writing="|".join(WRITING)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))


def run_killed(action: Callable[[], object], when: str, number: int) -> bool:
    """Run something in a process that git kills; return whether it was killed."""

    def child() -> None:
        os.setsid()
        os.environ[when] = str(number)
        action()
        os._exit(0)  # what other tests of this process left to be done at its end is not for its copy to do

    Path(os.environ["COUNT"]).write_text("0")
    process = get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def kills(project: Project, action: Callable[[], object], steps: Iterator[tuple[str, int]]) -> Iterator[str]:
    """Kill an action at one step after another, each time from the same refs, until it is not reached any more."""
    before = refs(project)
    for when, number in steps:
        killed = run_killed(action, when, number)
        yield f"{when} {number}"
        new = [f"delete {ref}\n" for ref in refs(project) if ref not in before]
        old = [f"update {ref} {commit}\n" for ref, commit in before.items()]
        subprocess.run(
            ["git", "update-ref", "--stdin"], cwd=project.root, input="".join(new + old), text=True, check=True
        )
        if not killed:
            return
    raise AssertionError("it was killed at the last step, too")


def refs(project: Project) -> dict[str, str]:
    lines = git(project.root, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {ref: commit for ref, _, commit in (line.partition(" ") for line in lines)}


def after_each_write(first: int = 1) -> Iterator[tuple[str, int]]:
    """Yield every moment that differs: before the first write, and after each (which is before the next)."""
    yield "KILL_BEFORE", 1
    for number in range(first, 100):
        yield "KILL_AFTER", number


def is_whole(project: Project) -> None:
    assert git(project.root, "fsck", "--strict", "--no-dangling") == ""
    book = load(project.root)
    for before, after in zip(book.decisions, book.decisions[1:], strict=False):
        assert after.previous == book.digest(before)


@pytest.mark.usefixtures("killing")
def test_killed_at_every_step_the_old_or_the_new_champion_is_in_force(small_project: Project) -> None:
    project = small_project
    for name in ("v1.0.0", "v2.0.0"):
        put_on_record(project, name)
        git(project.root, "commit", "--quiet", "--allow-empty", "--message", "Go on")
    first, second = version(project, "v1"), version(project, "v2")
    promote(project, first, reason="")
    seen: list[tuple[str | None, bool]] = []
    for _ in kills(project, lambda: promote(project, second, reason=""), after_each_write()):
        is_whole(project)
        seen.append((champion_name(project), load(project.root).pending() is not None))
        promote(project, second, reason="")
        assert champion_name(project) == "v2.0.0"
        assert len(load(project.root).decisions) == 4
    assert [state for state, _ in groupby(seen)] == [("v1.0.0", False), ("v1.0.0", True), ("v2.0.0", False)]

    promote(project, second, reason="")
    seen = []
    for _ in kills(project, lambda: rollback(project, to=None, reason=""), after_each_write()):
        is_whole(project)
        seen.append((champion_name(project), load(project.root).pending() is not None))
        if champion_name(project) == "v2.0.0":
            rollback(project, to=None, reason="")
        assert champion_name(project) == "v1.0.0"
        assert len(load(project.root).decisions) == 5
    assert [state for state, _ in groupby(seen)] == [("v2.0.0", False), ("v2.0.0", True), ("v1.0.0", False)]


@pytest.mark.usefixtures("killing")
def test_a_registration_is_whole_or_not_there(project: Project) -> None:
    run = find_run(project, "HEAD")
    steps = after_each_write(11)  # the commit of the registry, its branch, the tag's object, the tag
    seen = []
    for _ in kills(project, lambda: register.register(project, run, reason="why"), steps):
        is_whole(project)
        book = load(project.root)
        registered = register.find_registered(project, run.commit or "")
        seen.append((book.entry("v1.0.0") is not None, registered is not None))
        assert sorted(book.files) == [] or len(book.files) == 7
        if registered is None:
            assert register.register(project, run, reason="why").version == "v1.0.0"
        assert len(load(project.root).decisions) == 1
        assert champion.finish_pending(project) == []
    assert [state for state, _ in groupby(seen)] == [(False, False), (True, False), (True, True)]
