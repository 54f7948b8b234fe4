import re
from pathlib import Path

import pytest

from benchmarks import predict
from tests.inference.running import picture
from tests.tasks.export.exports import small_exports_made


def test_both_sides_are_measured_in_one_run(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        (tmp_path / f"{number}.png").write_bytes(picture("red"))
    monkeypatch.setattr(predict, "ONE_PHOTO_RUNS", 1)
    monkeypatch.setattr(predict, "SINGLE_PHOTOS", 3)
    predict.compare(tmp_path, str(small_exports_made(shared_folder) / "first"), rounds=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "25 photos, 1 rounds; decoding is included"
    assert [line[:10].rstrip() for line in lines[1:]] == ["one by one", "float32", "bfloat16", "one photo"]
    for line in lines[2:4]:
        rate, times, whole = (float(number) for number in re.findall(r"[\d.]+", line[10:]))
        assert rate > whole > 0, "start-up takes time"
        assert times > 1
