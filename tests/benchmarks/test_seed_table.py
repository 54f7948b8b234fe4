import copy
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import seed_page, seed_table
from benchmarks.seed_table import Workplace
from tasks.image_table import ImageRow, write_images
from tasks.params import check_params
from tasks.stage import PawlineError
from tests.benchmarks.test_seed_page import RESULTS
from tests.conftest import ROOT


@pytest.mark.parametrize("preset", seed_page.AUTHORS_STATE)
def test_a_preset_over_the_committed_parameters_is_valid(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    values = seed_table.read_preset(preset)
    seed_table.apply_preset(path, values, tmp_path / "photos.zip", seed=7)
    params = check_params(path)
    assert (params.data.source, params.data.path) == ("archive", str(tmp_path / "photos.zip"))
    assert [params.features.seed, params.train_head.seed, params.fine_tune.seed] == [7, 7, 7]
    assert params.train_head.epochs == values["train_head"]["epochs"]
    assert params.features.augment.model_dump() == values["features"]["augment"]
    assert params.fine_tune.unfrozen_layers == values["fine_tune"]["unfrozen_layers"]


def test_archives_are_unpacked_under_their_own_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photos/Cat/ça va.jpg", b"cat")
        archive.writestr("photos/readme.txt", b"read")
    seed_table.unpack(tmp_path / "photos.zip", tmp_path / "out")
    assert (tmp_path / "out" / "photos" / "Cat" / "ça va.jpg").read_bytes() == b"cat"


def test_figures_of_a_run_are_read(tmp_path: Path) -> None:
    rows = [ImageRow(id=str(n), path=f"{n}.jpg", label="cat", split="val" if n < 2 else "train") for n in range(5)]
    for folder in ("data", "models/stage1", "models/stage2"):
        (tmp_path / folder).mkdir(parents=True)
    write_images([*rows, ImageRow(id="x", path="x.jpg", label="cat", reason="blank")], tmp_path / "data/images.parquet")
    for stage, best, last in (("stage1", 0.5, 0.5), ("stage2", 0.4, 0.25)):
        (tmp_path / "models" / stage / "epochs.csv").write_text(f"epoch,val_accuracy\n1,0.75\n2,{last}\n")
        summary = {"best": {"val_accuracy": best}, "selected": "stage1"}
        (tmp_path / "models" / stage / "summary.json").write_text(json.dumps(summary))
    assert seed_table.read_pawline(tmp_path, 12.345) == {
        "train": 3,
        "val": 2,
        "stage1": 0.5,
        "stage2": 0.4,
        "chosen": 0.5,
        "last_epoch": 0.25,
        "seconds": 12.35,
    }
    (tmp_path / "models/stage2/summary.json").write_text(json.dumps({"best": None, "selected": "stage1"}))
    alone = seed_table.read_pawline(tmp_path, 1.0)
    assert (alone["stage2"], alone["last_epoch"]) == (None, 0.5)


def test_a_failed_command_gives_its_error_in_one_line(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    says = "import sys; sys.stderr.write('working\\nerror: no photos\\nERROR: stage failed\\n'); sys.exit(3)"
    with pytest.raises(PawlineError, match=r"^error: no photos \(.*; all it said is in .*output\.txt\)$"):
        seed_table.run_timed([sys.executable, "-c", says], workplace, cwd=tmp_path)


def test_a_command_is_timed_with_the_environment_of_a_fresh_user(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    waits = "import os, time; time.sleep(0.2); print(os.environ['XDG_CACHE_HOME'])"
    assert seed_table.run_timed([sys.executable, "-c", waits], workplace, cwd=tmp_path) > 0.2
    assert workplace.output.read_text() == f"{tmp_path / 'user-cache'}\n"


def test_a_clone_has_a_cache_with_nothing_but_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_table, "WEIGHTS", tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    workplace = Workplace(tmp_path / "work")
    for rest in (workplace.clone / "data" / "rest", workplace.cache / "pawline" / "digests"):
        rest.mkdir(parents=True)
    seed_table.make_clone(workplace)
    assert (workplace.clone / "params.yaml").is_file()
    assert not (workplace.clone / "data" / "rest").exists()
    assert [path.resolve() for path in (workplace.cache / "pawline").iterdir()] == [tmp_path / "kept"]


def test_missing_photos_stop_it_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_table, "SHARED_DATA", tmp_path)
    with pytest.raises(PawlineError, match=r"alien_vs_predator\.zip is not in .*: set PAWLINE_SHARED_DATA"):
        seed_table.main(["--presets", "s2", "--page-out", str(tmp_path / "page.md")])


def test_a_page_can_be_written_again(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text(json.dumps(RESULTS))
    command = [sys.executable, "-m", "benchmarks.seed_table", "--render", "--page-out", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == seed_page.render(RESULTS)
    assert "pass  s1 accuracy: 0.9800, at least 0.9500\n" in done.stdout
    slow = copy.deepcopy(RESULTS)
    slow["s1"]["runs"][0]["pawline"]["seconds"] = 1000.0
    (tmp_path / "page.json").write_text(json.dumps(slow))
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 1
