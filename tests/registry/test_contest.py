"""Real models answer real photos: what is compared with what, and that nothing is left at work when it is stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from lineage.runs import MODEL_PATH, Project, Run, find_run
from registry import contest
from registry.gate import Entrant, Tally, judge
from registry.records import Verdict
from tasks.image_table import read_images
from tasks.params import GateParams, check_params
from tasks.stage import PawlineError
from tests.conftest import ROOT

RULES = check_params(ROOT / "params.yaml").gate
HOLD = """\
import sys
from pathlib import Path
from lineage.runs import Project, find_run
from registry import contest
from tasks.params import check_params

project, rules = Project(Path()), check_params(Path(sys.argv[1])).gate
contest.hold(project, champion=find_run(project, "HEAD~1"), challenger=Path(), rules=rules)
"""


@pytest.fixture
def project(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return Project(three_runs)


def hold(project: Project, champion: Run | None, rules: GateParams = RULES) -> contest.Contest:
    return contest.hold(project, champion=champion, challenger=project.root, rules=rules, name="retrain-1")


def test_both_models_answer_as_in_their_own_evaluation(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = find_run(project, "HEAD~1")
    entrants: dict[str, Entrant] = {}

    def watched(tally: Tally, *, champion: Entrant, challenger: Entrant, rules: GateParams) -> Verdict:
        entrants.update(champion=champion, challenger=challenger)
        return judge(tally, champion=champion, challenger=challenger, rules=rules)

    monkeypatch.setattr(contest, "judge", watched)
    labels = project.root / contest.LABELS_PATH
    more = json.loads(labels.read_text())
    more["labels"].append("never answered")
    labels.unlink()  # a link into DVC's cache
    labels.write_text(json.dumps(more))
    result = hold(project, champion)
    verdict = result.verdict
    photos = {row["id"]: row for row in pq.read_table("data/predictions.parquet").to_pylist()}
    before = project.root / "before.parquet"
    before.write_bytes(project.store.read_path(project.lock(champion), "data/predictions.parquet") or b"")
    earlier = {row["id"]: row for row in pq.read_table(before).to_pylist()}

    def recognised(rows: dict[str, dict[str, str]]) -> set[str]:
        return {photo for photo, row in rows.items() if row["label"] == row["predicted"]}

    assert (verdict.split, verdict.images, verdict.left_out) == ("test", len(photos), 0)
    assert verdict.challenger.right == len(recognised(photos))
    assert (verdict.challenger.name, verdict.champion and verdict.champion.name) == ("retrain-1", "HEAD~1")
    assert photos.keys() & earlier.keys()
    in_dispute = {one.row.id: one for one in result.disagreements}
    for photo in photos.keys() & earlier.keys():  # the champion's own evaluation had them, too
        disputed = (photo in recognised(photos)) is not (photo in recognised(earlier))
        assert (photo in in_dispute) is disputed
        if disputed:
            assert in_dispute[photo].challenger.label == photos[photo]["predicted"]
            assert in_dispute[photo].champion.label == earlier[photo]["predicted"]
            assert in_dispute[photo].champion.probability == pytest.approx(earlier[photo]["probability"], abs=1e-4)
    assert verdict.answers is not None
    assert verdict.answers.only_challenger + verdict.answers.only_champion == len(in_dispute)
    known = next(part for part in verdict.slices if part.by == "photos")
    assert (known.value, known.images) == ("known to the champion's data", len(photos.keys() & earlier.keys()))
    assert verdict.challenger.bytes == (project.root / MODEL_PATH).stat().st_size
    assert not verdict.promote
    groups = {row.group for row in read_images(project.root / contest.IMAGES_PATH) if row.id in in_dispute}
    assert (verdict.groups_won or 0) + (verdict.groups_lost or 0) <= len(groups)
    assert entrants["challenger"].labels == set(more["labels"])
    assert entrants["champion"].labels == set(more["labels"]) - {"never answered"}
    assert result.raw_dir == project.root / "data/raw"


def test_what_is_missing_is_named_before_anything_answers(project: Project) -> None:
    champion = find_run(project, "HEAD~1")
    md5 = project.store.find_md5(project.lock(champion), MODEL_PATH)
    cached = project.store.object_path(md5 or "")
    cached.chmod(0o644)
    cached.rename(project.root / "kept")
    with pytest.raises(
        PawlineError, match=r"models/classifier\.keras of the champion HEAD~1 is neither in DVC's cache"
    ):
        hold(project, champion)
    shutil.copy(project.root / "params.yaml", cached)
    with pytest.raises(PawlineError, match="tampered: "):
        hold(project, champion)
    (project.root / "kept").replace(cached)
    (project.root / MODEL_PATH).unlink()
    with pytest.raises(
        PawlineError, match=r"models/classifier\.keras is missing: the challenger's run is not finished"
    ):
        hold(project, champion)


def test_a_model_that_cannot_answer_is_said_in_one_line(project: Project) -> None:
    path = project.root / "params.yaml"
    path.write_text(path.read_text().replace("size_px: 96", "size_px: 32"))
    with pytest.raises(PawlineError) as caught:
        hold(project, None)
    assert str(caught.value) == (
        "the models could not be compared: models/challenger/params.yaml: image.size_px is 32: allowed is an integer "
        "at least 96, at most 320"
    )


def has_started(process: psutil.Process) -> bool:
    """Whether it is past its own imports: it loads what it answers with."""
    try:
        return any("tensorflow" in file.path for file in process.memory_maps())
    except psutil.NoSuchProcess:  # a child of a moment, not the one that answers
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_nothing_at_work(project: Project, tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "hold.py"
    script.write_text(HOLD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, str(script), str(ROOT / "params.yaml")]
    judge = subprocess.Popen(arguments, cwd=project.root, env=environment, stderr=subprocess.DEVNULL)
    process, deadline = psutil.Process(judge.pid), time.monotonic() + 60
    while not (at_work := process.children()) or not has_started(at_work[0]):
        assert judge.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    judge.send_signal(how)
    assert judge.wait(30) != 0
    assert psutil.wait_procs(at_work, timeout=10)[1] == []
