"""The validate stage, on small made-up sources and on the real photos."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tasks import tables
from tasks import validate as validate_module
from tasks.cluster import map_chunks
from tasks.image_table import SCHEMA, ImageRow, read_images
from tasks.images import Verdict
from tasks.params import ValidateParams
from tasks.raw import RawRecord, Wanted, write_shards
from tasks.stage import SEAL, PawlineError
from tasks.validate import examine, main, validate
from tasks.verdicts import NOTHING
from tests.conftest import ROOT
from tests.tasks.test_expectations import params

REASONS_OF = {  # the truth table's defects, and the reasons that fit each
    "zero_bytes": {"empty"},
    "truncated": {"truncated"},
    "bad_header": {"not_an_image", "undecodable"},
    "html_page": {"not_an_image"},
    "exact_duplicate": {"exact_duplicate"},
    "label_conflict": {"label_conflict"},
    "tiny": {"too_small"},
    "blank": {"blank"},
    "decompression_bomb": {"too_large"},
}


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def source(count: int = 40) -> list[RawRecord]:
    return [
        RawRecord(f"{'cat' if n % 2 else 'dog'}/{n}.jpg", "cat" if n % 2 else "dog", "", jpeg(n)) for n in range(count)
    ]


def run(records: list[RawRecord], folder: Path, params: ValidateParams) -> dict[str, Any]:
    raw_dir = folder / "data" / "raw"
    raw_dir.mkdir(parents=True, exist_ok=True)
    write_shards(records, raw_dir)
    return validate(
        raw_dir=raw_dir,
        images_out=folder / "data" / "images.parquet",
        verdicts_dir=folder / "data" / "verdicts",
        docs_out=folder / "reports" / "validation",
        metrics_out=folder / "reports" / "metrics" / "validation.json",
        params=params,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    files = [folder / "data" / "images.parquet", *(folder / "reports").rglob("*.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the made-up source. Tests copy it to run again."""
    folder = tmp_path_factory.mktemp("done")
    run(source(), folder, params())
    return folder


@pytest.fixture(scope="module")
def done_with_twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RawRecord]]:
    """Another, of a source with two photos that look alike, and the source."""
    folder = tmp_path_factory.mktemp("twins")
    records = [*source(80), RawRecord("dog/1 again.jpg", "dog", "", jpeg(2)[:-2] + b"\xff\xd9 more")]
    run(records, folder, params())
    return folder, records


def test_the_table_has_the_contract_columns(done: Path) -> None:
    rows = read_images(done / "data" / "images.parquet")
    contract = "id path label status reason duplicate_of group split width height format mode bytes"
    assert " ".join(SCHEMA.names).startswith(contract + " ")
    assert [row.path for row in rows] == sorted(record.path for record in source())
    assert {(row.width, row.height, row.format, row.mode, row.jfif) for row in rows} == {(64, 48, "JPEG", "RGB", True)}
    assert all(row.bytes == len(record.content) for row, record in zip(rows, sorted(source()), strict=True))


def test_the_summary_counts_the_table(tmp_path: Path) -> None:
    records = source()
    records += [RawRecord("dog/0b.jpg", "dog", "", records[0].content), RawRecord("cat/none.jpg", "cat", "", b"")]
    summary = run(records, tmp_path, params())
    assert json.loads((tmp_path / "reports" / "metrics" / "validation.json").read_text()) == summary
    rows = read_images(tmp_path / "data" / "images.parquet")
    assert (summary["images"], summary["kept"], summary["quarantined"]) == (42, 40, 2)
    assert summary["by_reason"] == {"empty": 1, "exact_duplicate": 1}
    assert summary["header_rule"] == {"dropped": 1, "dropped_but_fine": 0}
    assert summary["labels"] == ["cat", "dog"]
    for split, by_label in summary["splits"].items():
        for label, count in by_label.items():
            assert count == sum((row.split, row.label) == (split, label) for row in rows)


def test_the_same_input_gives_the_same_bytes(done: Path, tmp_path: Path) -> None:
    run(list(reversed(source())), tmp_path, params())
    assert outputs(tmp_path) == outputs(done)


def test_overrides_reach_the_table(tmp_path: Path) -> None:
    records = [*source(), RawRecord("cat/blank.png", "cat", "", _blank_png())]
    run(records, tmp_path, params())
    rows = {row.path: row for row in read_images(tmp_path / "data" / "images.parquet")}
    changed = params(keep=[rows["cat/blank.png"].id], reject=[rows["cat/1.jpg"].id])
    assert run(records, tmp_path, changed)["overridden"] == {"kept": 1, "rejected": 1}
    rows = {row.path: row for row in read_images(tmp_path / "data" / "images.parquet")}
    assert rows["cat/blank.png"].status == "kept"
    assert rows["cat/blank.png"].split in ("train", "val", "test")
    assert rows["cat/1.jpg"].reason == "rejected"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of files that each run decodes."""
    numbers = []

    def count(
        function: Callable[[Wanted], dict[str, Verdict]],
        wanted: list[Wanted],
        rescue: Callable[[Wanted], dict[str, Verdict]],
    ) -> Iterator[dict[str, Verdict]]:
        numbers.append(sum(len(some.rows) for some in wanted))
        return map_chunks(function, wanted, rescue)

    monkeypatch.setattr(validate_module, "map_chunks", count)
    return numbers


def everything(folder: Path) -> dict[str, bytes]:
    return outputs(folder) | {path.name: path.read_bytes() for path in (folder / "data" / "verdicts").iterdir()}


def test_new_files_cost_what_they_add(tmp_path: Path, judged: list[int]) -> None:
    later = [
        RawRecord("cat/0.jpg", "cat", "", jpeg(100)),
        RawRecord("dog/1 again.jpg", "dog", "", jpeg(2)[:-2] + b"\xff\xd9 more"),  # looks like dog/2.jpg
        RawRecord("dog/9.png", "dog", "", _blank_png()),
    ]
    run(source(80)[:-1], tmp_path / "grown", params())
    grown = run([*source(80)[1:], *later], tmp_path / "grown", params())
    assert grown == run([*source(80)[1:], *later], tmp_path / "anew", params())
    assert judged == [79, 4, 82]
    assert everything(tmp_path / "grown") == everything(tmp_path / "anew")
    assert grown["near_duplicate_groups"] == 1


def test_another_threshold_judges_anew_and_another_share_does_not(
    done: Path, tmp_path: Path, judged: list[int]
) -> None:
    folder = shutil.copytree(done, tmp_path / "again")
    for changed in ({"max_reject_share": 0.3, "near_duplicate_bits": 3}, {"min_side_px": 33}):
        run(source(), folder, params(**changed))
    assert judged == [0, 40]


@pytest.mark.parametrize("name", ["verdicts.parquet", "pairs.parquet"])
def test_damaged_knowledge_is_made_anew(
    done_with_twins: tuple[Path, list[RawRecord]], tmp_path: Path, judged: list[int], name: str
) -> None:
    folder, records = shutil.copytree(done_with_twins[0], tmp_path / "again"), done_with_twins[1]
    before = everything(folder)
    path = folder / "data" / "verdicts" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 10] ^= 1
    path.write_bytes(content)
    run(records, folder, params())
    assert judged == [81 if name == "verdicts.parquet" else 0]
    assert everything(folder) == before


def test_files_that_are_not_what_was_ingested(tmp_path: Path) -> None:
    raw_dir = tmp_path / "data" / "raw"
    raw_dir.mkdir(parents=True)
    write_shards(source(), raw_dir)
    shard = raw_dir / "raw-00000.parquet"
    table = tables.read_table(shard)
    contents = [content.replace(jpeg(7), jpeg(7)[:-1] + b"\xd8") for content in table["content"].to_pylist()]
    tables.write_table(pa.Table.from_pydict(table.to_pydict() | {"content": contents}, table.schema), shard)
    (raw_dir / SEAL).unlink()
    with pytest.raises(PawlineError, match=r"raw-00000.parquet row group 0: a file is not what was ingested: run `dvc"):
        examine(raw_dir, params(), NOTHING)


def test_a_failure_leaves_the_table_and_shows_the_evidence(done: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(done, tmp_path / "again")
    before = outputs(folder)
    broken = [record._replace(content=record.content[:300]) for record in source()[:20]] + source()[20:]
    message = (
        r"validation failed: at least 80.0% of the files .* 20 of 40 \(50.0%\): cat/1.jpg \(truncated\).*index.html$"
    )
    with pytest.raises(PawlineError, match=message) as caught:
        run(broken, folder, params())
    assert "\n" not in str(caught.value)
    after = outputs(folder)
    for name in ("data/images.parquet", "reports/metrics/validation.json"):
        assert after[name] == before[name]
    assert b"not met" in after["reports/validation/index.html"]
    assert sorted(path.name for path in (folder / "reports").iterdir()) == ["metrics", "validation"]


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match="data/raw holds no photos: run `dvc repro ingest` first"):
        run([], tmp_path, params())


def test_as_a_process(workdir: Path) -> None:
    raw_dir = workdir / "data" / "raw"
    raw_dir.mkdir(parents=True)
    write_shards(source(), raw_dir)
    (workdir / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "tasks.validate"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"validate: kept 40 of 40 photos, quarantined 0; the header rule would have dropped 0, 0 of them fine; "
        r"see reports/validation/index.html\n",
        done.stdout,
    )


def test_help_says_what_it_reads_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in ("data/raw", "data/images.parquet", "reports/validation", "params.yaml"))


@pytest.fixture(scope="module")
def petimages(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, ImageRow], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("petimages")
    summary = run(list(_zip_records(shared_data / "petimages.zip")), folder, params())
    return {row.path: row for row in read_images(folder / "data" / "images.parquet")}, summary


@pytest.fixture(scope="module")
def truth(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "petimages_truth.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["expected"] != "ignore"]


def test_every_planted_defect_is_quarantined_under_a_fitting_reason(
    petimages: tuple[dict[str, ImageRow], dict[str, Any]], truth: list[dict[str, str]]
) -> None:
    rows, _ = petimages
    planted = [row for row in truth if row["expected"] == "quarantine"]
    wrong = [row for row in planted if rows[row["path"]].reason not in REASONS_OF[row["defect"]]]
    assert (len(planted), wrong) == (45, [])


def test_every_fine_photo_is_kept(
    petimages: tuple[dict[str, ImageRow], dict[str, Any]], truth: list[dict[str, str]]
) -> None:
    rows, summary = petimages
    fine = [row["path"] for row in truth if row["expected"].startswith("keep")]
    assert {path: rows[path].reason for path in fine if rows[path].reason} == {}
    assert (summary["kept"], len(rows)) == (len(fine), len(truth))


def test_near_duplicates_share_a_split_and_nothing_else_is_grouped(
    petimages: tuple[dict[str, ImageRow], dict[str, Any]], truth: list[dict[str, str]]
) -> None:
    rows, summary = petimages
    planted: dict[str, list[ImageRow]] = {}
    for row in truth:
        if row["group"].startswith("near"):
            planted.setdefault(row["group"], []).append(rows[row["path"]])
    assert summary["near_duplicate_groups"] == len(planted) == 10
    for members in planted.values():
        assert len(members) == 2
        assert len({(row.group, row.split) for row in members}) == 1


def test_predefined_splits_of_the_real_photos_leak_nothing(shared_data: Path, tmp_path: Path) -> None:
    summary = run(list(_zip_records(shared_data / "alien_vs_predator.zip")), tmp_path, params())
    rows = read_images(tmp_path / "data" / "images.parquet")
    assert all(row.path.startswith(row.split) for row in rows if row.split)
    assert summary["splits"]["val"] == {"alien": 100, "predator": 100}
    assert summary["splits"]["test"] == {"alien": 0, "predator": 0}
    leaks = [row for row in rows if row.reason == "split_leak"]
    assert leaks
    assert all(row.path.startswith("train/") for row in leaks)
    groups = {row.group: row.split for row in rows if not row.reason}
    assert all(groups[row.group] == row.split for row in rows if not row.reason)


def _zip_records(path: Path) -> Iterator[RawRecord]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            *folders, file = name.split("/")
            if not folders or not re.fullmatch(r"(?!\._).*\.jpg", file):
                continue
            split = {"train": "train", "validation": "val"}.get(folders[-2], "") if len(folders) > 1 else ""
            yield RawRecord(name, folders[-1].lower(), split, archive.read(name))


def _blank_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(buffer, "PNG")
    return buffer.getvalue()
