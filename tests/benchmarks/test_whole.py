from pathlib import Path

import pytest

from benchmarks import whole
from benchmarks.seed_table import Workplace
from tasks.params import check_params
from tests.conftest import ROOT


def test_a_changed_head_is_the_recipe_but_for_its_learning_rate(tmp_path: Path) -> None:
    workplace, archive = Workplace(tmp_path), tmp_path / "photos.zip"
    workplace.clone.mkdir()
    workplace.photos(archive).mkdir(parents=True)  # unpacked already
    params = workplace.clone / "params.yaml"
    bench = whole.Bench(archive, "s4", workplace)
    settings = []
    for changes in ({}, {"train_head.learning_rate": whole.LEARNING_RATES[0]}):
        params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        bench.write_params(3, changes)
        settings.append(check_params(params).model_dump())
    recipe, changed = settings
    assert recipe["data"]["path"] == str(archive)
    assert (recipe["train_head"]["seed"], recipe["fine_tune"]["unfrozen_layers"]) == (3, 100)
    assert changed["train_head"].pop("learning_rate") != recipe["train_head"].pop("learning_rate")
    assert changed == recipe


def test_an_archive_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        whole.main(["--archive", str(tmp_path / "no.zip")])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no ")
    assert error.count("\n") == 1
