import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks import growth
from benchmarks.growth import Growth, Size, Usage
from benchmarks.photos import JPEG_START
from benchmarks.seed_table import Workplace
from tests.conftest import ROOT

MIB = 2**20
SETTINGS = {"train_head.epochs": 2, "fine_tune.epochs": 1, "export.formats": ["keras"]}


def usage(seconds: float, memory: int, resident: int = 200 * MIB, outputs: int = 100) -> Usage:
    return {
        "seconds": seconds,
        "cpu_seconds": seconds,
        "memory": memory,
        "resident": resident,
        "outputs": outputs,
    }


def size(photos: int, **stages: Usage) -> Size:
    outputs = sum(usage["outputs"] for usage in stages.values())
    return {"photos": photos, "outputs": outputs, "cache": outputs - 10, "settings": SETTINGS, "stages": stages}


GROWTH: Growth = {
    "machine": "a machine",
    "sizes": {
        "10000": size(1000, ingest=usage(10.0, 111 * MIB), train_head=usage(100.0, 120 * MIB, 500 * MIB)),
        "1000": size(100, ingest=usage(1.0, 100 * MIB), train_head=usage(1.0, 100 * MIB, 250 * MIB)),
    },
}


def test_exponent_and_growth_are_over_the_sizes_in_order_of_number() -> None:
    ingest, train_head = growth.trend(GROWTH, "ingest"), growth.trend(GROWTH, "train_head")
    assert (ingest["exponent"], train_head["exponent"]) == pytest.approx((1.0, 2.0))
    assert (ingest["memory_growth"], train_head["memory_growth"]) == pytest.approx((0.11, 0.2))
    assert train_head["resident_growth"] == pytest.approx(1.0)


def test_each_bar_that_fails_is_named() -> None:
    assert growth.failures(GROWTH) == [
        "ingest: its memory grows by 11%, more than 10%",
        "train_head: the exponent of its time is 2.00, above 1.05",
    ]
    full = size(10, ingest=usage(1.0, MIB, outputs=18), export=usage(1.0, MIB, outputs=13))
    one: Growth = {"machine": "a machine", "sizes": {"10": full}}
    assert growth.failures(one) == ["disk: outputs and DVC's cache are 5.20 times the photos, above 5"]
    assert [line.split()[1:4] for line in growth.describe(one)[2:4]] == [["-", "-", "-"]] * 2


def test_memory_of_all_processes_is_seen_and_mapped_files_apart(tmp_path: Path) -> None:
    (tmp_path / "mapped").write_bytes(bytes(64 * MIB))
    child = "held = bytearray(b'x') * (96 << 20); import time; time.sleep(0.5)"
    parent = (
        "import mmap, subprocess, sys; held = bytearray(b'x') * (160 << 20); file = open('mapped', 'r+b');"
        "mapped = mmap.mmap(file.fileno(), 0); read = sum(mapped[::4096]);"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    with growth.MemoryWatch() as watch:
        subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=True)
    assert 256 * MIB < watch.memory < 256 * MIB + 60 * MIB
    assert watch.memory + 64 * MIB < watch.resident < watch.memory + 64 * MIB + 60 * MIB


def make_small_project(workplace: Workplace) -> None:
    """A project of one stage, which works for 0.3 s and writes 1,000 bytes twice and 10 and 1 once."""
    workplace.clone.mkdir()
    lines = (
        "import time, pathlib",
        "end = time.process_time() + 0.3",
        "while time.process_time() < end: pass",
        "pathlib.Path('out/deep').mkdir(parents=True)",
        "pathlib.Path('out/deep/a').write_bytes(bytes(1000))",
        "pathlib.Path('out/same').write_bytes(bytes(1000))",
        "pathlib.Path('b').write_bytes(bytes(10))",
        "pathlib.Path('counts').write_bytes(bytes(1))",
    )
    (workplace.clone / "work.py").write_text("\n".join(lines))
    (workplace.clone / "params.yaml").write_text("{train_head: {epochs: 20}}")
    stages = {"work": {"cmd": "python work.py", "outs": ["out", {"b": {"persist": True}}], "metrics": ["counts"]}}
    YAML(typ="safe", pure=True).dump({"stages": stages}, workplace.clone / "dvc.yaml")


def test_a_size_is_measured_with_all_that_its_stages_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "make_clone", make_small_project)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as zipped:
        zipped.writestr("Cat/1.jpg", JPEG_START + bytes(5000))
    size = growth.measure_size(4, tmp_path / "photos.zip", SETTINGS)
    work = size["stages"]["work"]
    assert (work["outputs"], size["outputs"], size["cache"]) == (2011, 2011, 1011)
    assert size["photos"] > 20_000
    assert size["settings"] == SETTINGS
    assert work["seconds"] >= 0.3
    assert work["cpu_seconds"] >= 0.3
    assert work["resident"] > work["memory"] > MIB
    assert capsys.readouterr().out.startswith("4 photos, work: ")
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"], "it cleans up"


def test_the_stages_are_those_of_the_project_and_come_after_what_they_read() -> None:
    stages = growth.read_stages(ROOT)
    made: set[str] = set()
    for described in stages.values():
        paths = [entry for entry in described["deps"] if entry.startswith(("data/", "models/", "reports/"))]
        assert {path for path in paths if path != "reports/context.json"} <= made
        made |= set(growth.output_paths(described))
    assert "data/raw" in made
    assert "reports/metrics/validation.json" in made


def test_sizes_that_are_there_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "figures.json"
    results.write_text(json.dumps({"other": {}, "growth": GROWTH}))
    measured: list[int] = []

    def measure_size(images: int, *_: object) -> Size:
        measured.append(images)
        return size(images, ingest=usage(images / 1000, MIB), train_head=usage(images / 1000, MIB))

    monkeypatch.setattr(growth, "measure_size", measure_size)
    common = ["--results", str(results), "--images", "10000", "1000", "2000"]
    growth.main(common)
    assert measured == [2000]
    kept = json.loads(results.read_text())
    assert kept["other"] == {}
    assert set(kept["growth"]["sizes"]) == {"1000", "2000", "10000"}
    assert "FAIL  train_head: the exponent" in capsys.readouterr().out
    growth.main([*common, "--epochs-head", "3"])
    assert measured == [2000, 1000, 2000, 10000], "other settings"
    growth.main([*common, "--again", "--epochs-head", "3"])
    assert measured[4:] == [1000, 2000, 10000]
