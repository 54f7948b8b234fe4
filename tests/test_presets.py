"""Every preset is a whole recipe, fits params.yaml, and means the same to DVC's own command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import presets
from tasks.params import AugmentParams, TrainHeadParams, TrainingParams, check_values
from tasks.params_file import read_values
from tests.conftest import ROOT

NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
# What a recipe may leave to params.yaml: what only some optimizers and schedules read, and the seed.
OPTIONAL = {"momentum", "weight_decay", "warmup_epochs", "plateau_factor", "plateau_patience", "seed"}
RECIPE = {
    *(
        "validate.splits.train",
        "validate.splits.val",
        "validate.splits.test",
        "image.size_px",
        "image.resize",
        "backbone.name",
        "backbone.width",
        "features.pooling",
        "features.views",
    ),
    *(f"features.augment.{key}" for key in AugmentParams.model_fields),
    *(f"train_head.{key}" for key in TrainHeadParams.model_fields.keys() - OPTIONAL),
    "fine_tune.unfrozen_layers",
}
TAIL = {f"fine_tune.{key}" for key in TrainingParams.model_fields.keys() - OPTIONAL}
yaml = YAML(typ="safe", pure=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of the project, without anything else."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_presets() -> None:
    assert {"full", "quick", "s0a", "s0b", "s0c", "s1", "s2", "s3", "s4"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_described_in_its_first_line(name: str) -> None:
    first = (ROOT / "presets" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert 20 < len(first) < 120


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_whole_recipe_and_valid(name: str, project: Path) -> None:
    settings = presets.load_preset(name)
    missing = RECIPE - settings.keys()
    if "data.path" in settings and settings["data.source"] == "archive":
        missing |= {"data.sha256"} - settings.keys()
    if settings.get("fine_tune.unfrozen_layers") != 0:
        missing |= TAIL - settings.keys()
    assert missing == set()
    if settings.get("data.source") in ("archive", "directory") and settings["data.path"] is None:
        settings["data.path"] = "photos.zip"
    check_values(presets.apply_settings(read_values(project / "params.yaml"), settings), project / "params.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_dvc_makes_the_same_of_a_presets_arguments(name: str, project: Path) -> None:
    """In a POSIX shell, as `dvc exp run $(pawline presets NAME --dvc)`; here DVC only writes params.yaml."""
    line = " ".join(presets.dvc_arguments(presets.load_preset(name)))
    code = (
        "import sys; from dvc.utils.hydra import apply_overrides; "
        "apply_overrides('params.yaml', [part for part in sys.argv[1:] if part != '--set-param'])"
    )
    (project / "arguments").write_text(line + "\n")
    (project / "ours.yaml").write_bytes((project / "params.yaml").read_bytes())
    subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" $(cat arguments)'], cwd=project, check=True)
    by_dvc = yaml.load(project / "params.yaml")
    shutil.copy(project / "ours.yaml", project / "params.yaml")
    presets.write_settings(presets.load_preset(name))
    ours = yaml.load(project / "params.yaml")
    assert repr(presets.flatten(by_dvc)) == repr(presets.flatten(ours))
    assert ours == presets.apply_settings(yaml.load(ROOT / "params.yaml"), presets.load_preset(name))
