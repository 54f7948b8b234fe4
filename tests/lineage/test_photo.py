"""One photo's story, over three real runs of synthetic pictures."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lineage import photo
from lineage.differences import IMAGES_PATH
from lineage.photo import find_prediction, photo_story
from lineage.photo_records import PhotoStory
from lineage.runs import WORKSPACE, Project, find_run
from tasks.image_table import SPLITS
from tasks.stage import PawlineError


def rows(path: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.ParquetFile(path).read(use_threads=False).to_pylist()
    return table


def roles(story: PhotoStory) -> dict[str, str]:
    """By what each run is called; the three commits by how far back they are."""
    return {name: encounter.role for encounter in story.encounters for name in encounter.runs}


def test_a_photo_is_where_its_story_says(three_runs: Path) -> None:
    """The last photo of each split, read back with what the stages read it with."""
    from tasks import records

    project = Project(three_runs)
    for split in SPLITS:
        image = [each for each in rows("data/images.parquet") if each["split"] == split][-1]
        stored = photo_story(project, WORKSPACE, image["id"]).stored
        assert stored is not None
        assert stored.augmented == (split == "train")
        batches = list(records.read_shard(Path(stored.tfrecord)))
        assert [image_id for batch in batches for image_id in batch.ids][stored.row] == image["id"]
        labels = np.load(stored.features.replace("pooled", "labels"))
        assert labels[stored.row] == ["cat", "dog"].index(image["label"])
        assert np.load(stored.features).shape[:2] == (len(labels), stored.views)


def test_models_are_told_apart_by_what_they_did_with_it(three_runs: Path) -> None:
    project = Project(three_runs)
    head = find_run(project, "HEAD").commit
    assert head is not None
    latest = head[:10]
    images, predictions = rows("data/images.parquet"), rows("data/predictions.parquet")
    said = next((each for each in predictions if each["label"] != each["predicted"]), predictions[0])
    story = photo_story(project, WORKSPACE, said["id"][:16])
    judged = next(encounter for encounter in story.encounters if latest in encounter.runs)
    assert (judged.role, judged.runs[0]) == ("judged", "workspace")
    assert [one.predicted for one in judged.judgements] == [said["predicted"]]
    assert judged.judgements[0].probability == pytest.approx(said["probability"])
    right = "right" if said["label"] == said["predicted"] else f"wrong, it is {said['label']}"
    assert f"{right}\n" in "\n".join([*story.lines(), ""])

    by_split = {split: next(each for each in images if each["split"] == split) for split in ("train", "val")}
    assert roles(photo_story(project, WORKSPACE, by_split["train"]["id"]))[latest] == "trained"
    assert roles(photo_story(project, WORKSPACE, by_split["val"]["id"]))[latest] == "chose"

    # In two runs these bytes lie under one label; the third has them under both, and keeps neither.
    conflict = next(each for each in images if each["reason"] == "label_conflict")
    story = photo_story(project, WORKSPACE, conflict["id"])
    assert Counter(file.label for file in story.files) == {"cat": 1, "dog": 1}
    assert story.stored is None
    assert (roles(story)["workspace"], roles(story)[latest]) == ("quarantined", "quarantined")
    earlier = {find_run(project, revision).commit for revision in ("HEAD~1", "HEAD~2")}
    assert all(roles(story)[str(commit)[:10]] != "quarantined" for commit in earlier)


def test_a_photo_of_an_earlier_run_is_described_by_that_run(three_runs: Path) -> None:
    project = Project(three_runs)
    before, now = find_run(project, "HEAD~1"), {each["id"] for each in rows("data/images.parquet")}
    table = project.store.read_path(project.lock(before), "data/images.parquet")
    assert table is not None
    Path("earlier.parquet").write_bytes(table)
    gone = next(each for each in rows("earlier.parquet") if each["id"] not in now and each["status"] == "kept")
    story = photo_story(project, WORKSPACE, gone["id"])
    assert (story.asked, roles(story)["workspace"]) == ("workspace", "absent")
    assert [file.path for file in story.files] == [gone["path"]]
    assert "not in the data of workspace" in story.lines()[1]
    assert photo_story(project, before, gone["id"]).asked is None


def test_ids_that_mean_no_photo_or_several_are_said_so(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(three_runs)
    for image_id, message in {
        "0" * 64: "there is no photo 0000",
        "abc": "abc is no photo's id",
        "not-hex": "not-hex is no photo's id",
    }.items():
        with pytest.raises(PawlineError, match=message):
            photo_story(project, WORKSPACE, image_id)
    monkeypatch.setattr(photo, "LEAST_DIGITS", 1)  # among a hundred photos, some begin with the same digit
    first, count = Counter(each["id"][0] for each in rows("data/predictions.parquet")).most_common(1)[0]
    assert count > 1
    with pytest.raises(PawlineError, match=f"{first} is the beginning of [0-9]+ photos' ids: give more digits"):
        photo_story(project, WORKSPACE, first)


def test_a_prediction_leads_to_its_run_and_its_photo(three_runs: Path) -> None:
    project = Project(three_runs)
    predictions = rows("data/predictions.parquet")
    copy = three_runs.parent / "kept elsewhere.parquet"
    shutil.copy("data/predictions.parquet", copy)
    found, image = find_prediction(project, f"{copy}#2")
    assert (found.name, found.found, image) == ("workspace", "data/predictions.parquet", predictions[2]["id"])
    assert find_prediction(project, f"{copy}#{image[:10]}") == (found, image)
    for what, message in {
        f"{copy}#99": f"they are 0 to {len(predictions) - 1}",
        f"{copy}#{'f' * 20}": "there is no photo",
        "nowhere.parquet#1": "there is no file nowhere.parquet",
        "data/images.parquet#1": "predictions are in data/predictions.parquet",
        "params.yaml#1": "params.yaml is unknown",
    }.items():
        with pytest.raises(PawlineError, match=message):
            find_prediction(project, what)


def test_what_is_not_at_hand_is_said(three_runs: Path) -> None:
    """The predictions of the latest run are lost, and the workspace has begun another one."""
    project = Project(three_runs)
    judged = rows("data/predictions.parquet")[0]["id"]
    lock = project.lock(WORKSPACE)
    lost = project.store.find_md5(lock, "data/predictions.parquet")
    assert lost is not None
    project.store.object_path(lost).unlink()
    earlier = project.store.find_md5(project.lock(find_run(project, "HEAD~1")), IMAGES_PATH)
    text = Path("dvc.lock").read_text(encoding="utf-8")
    validate, rest = text.split("  preprocess:\n")
    validate = validate.replace(str(project.store.find_md5(lock, IMAGES_PATH)), str(earlier))
    Path("dvc.lock").write_text(f"{validate}  preprocess:\n{rest}", encoding="utf-8")  # as `dvc repro validate` does
    story = photo_story(project, find_run(project, "HEAD"), judged)
    latest = next(encounter for encounter in story.encounters if "HEAD" in encounter.runs)
    assert (latest.role, latest.predictions_missing, latest.judgements) == ("judged", True, ())
    assert story.unfinished == ["workspace"]
    assert "workspace: unfinished" in story.lines()[-1]
