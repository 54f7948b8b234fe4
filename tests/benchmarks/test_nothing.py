import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import nothing
from benchmarks.seed_table import Workplace, apply_preset
from tasks.params import check_params
from tasks.stage import PawlineError
from tests.conftest import ROOT


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight JPEGs of two classes in a zip."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as zipped:
        for number in range(8):
            content = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(content, "JPEG")
            zipped.writestr(f"{'Cat' if number % 2 else 'Dog'}/{number}.jpg", content.getvalue())
    return tmp_path / "photos.zip"


def tracked_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


def test_the_plain_project_has_the_same_photos_and_then_nothing_to_do(photos: Path, tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "plain")
    workplace.root.mkdir()
    nothing.build_plain(photos, workplace, one_file=False)
    project = workplace.clone
    with zipfile.ZipFile(photos) as zipped:
        size = sum(member.file_size for member in zipped.infolist())
        assert {str(path.relative_to(project / "data/photos")) for path in project.rglob("*.jpg")} == {
            member.filename for member in zipped.infolist()
        }
    assert tracked_bytes(project / "data" / "photos") == size
    assert (project / "data" / "photos.dvc").is_file()
    sizes = [(project / path).stat().st_size for path in ("data/prepared/photos.bin", "data/features/features.bin")]
    assert sizes == [size, size // 4]
    nothing.repro(workplace)
    assert "up to date" in workplace.output.read_text()
    (project / "src" / "train.py").write_text(nothing.SCRIPT + "# changed\n")
    with pytest.raises(PawlineError, match=r"was not up to date \(train\): remove .*plain and run again"):
        nothing.repro(workplace)
    with pytest.raises(PawlineError, match=r"was not up to date \(source\)"):
        nothing.repro(workplace, always=frozenset({"source"}))


def test_the_photos_can_be_one_file(photos: Path, tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "plain")
    workplace.root.mkdir()
    nothing.build_plain(photos, workplace, one_file=True)
    assert (workplace.clone / "data" / "photos.zip").read_bytes() == photos.read_bytes()
    assert (workplace.clone / "data" / "prepared" / "photos.bin").read_bytes() == photos.read_bytes()
    assert [path.name for path in (workplace.clone / "data").glob("*.dvc")] == ["photos.zip.dvc"]


def test_what_is_built_is_not_built_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def build_side(archive: Path, workplace: Workplace, **_: object) -> None:
        with zipfile.ZipFile(archive) as zipped:
            built.append(f"{workplace.root.name} of {len(zipped.infolist())}")

    monkeypatch.setattr(nothing, "build_ours", build_side)
    monkeypatch.setattr(nothing, "build_plain", build_side)
    nothing.build(tmp_path / "kept", photos, 12, one_file=False)
    assert [name.split("-")[0] for name in built] == ["pawline", "plain"]
    assert all(name.endswith(" of 12") for name in built), "both have the same photos"
    nothing.build(tmp_path / "kept", photos, 12, one_file=False)
    assert len(built) == 2
    nothing.build(tmp_path / "kept", photos, 12, one_file=True)
    assert built[2:] == ["plain-12-one-file of 12"]
    nothing.build(tmp_path / "kept", photos, 13, one_file=False)
    assert len(built) == 5


def test_the_cheapest_settings_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    apply_preset(path, nothing.CHEAPEST, tmp_path / "photos.zip", seed=0)
    params = check_params(path)
    assert (params.image.size_px, params.features.views, params.fine_tune.unfrozen_layers) == (96, 1, 0)
    assert (params.train_head.epochs, params.export.formats) == (1, ("keras",))
