import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import where
from benchmarks.seed_table import Workplace

WORK = """\
import time
from pathlib import Path

def work():
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        rest()

def rest():
    for path in Path("given").rglob("*"):
        str(path)

work()
Path("made").write_bytes(bytes(3000))
"""


def test_each_look_counts_for_the_innermost_of_our_functions() -> None:
    main = 'process 7:"python -m tasks.validate";thread (7): MainThread'
    lines = [
        f"{main};<module> (tasks/validate.py:9);validate (/home/a b/tasks/validate.py:5);load (PIL/Image.py:2) 6",
        f"{main};<module> (tasks/validate.py:9);validate (tasks/validate.py:70) 1",
        f"{main};<module> (tasks/validate.py:9);_find_and_load (<frozen importlib._bootstrap>:1176);x (great.py:1) 2",
        f"{main};_run_code (<frozen runpy>:88);x (/v/site-packages/a/tasks/b.py:1) 1",
        'process 7:"python -m tasks.validate";thread (8): QueueFeederThread;wait (threading.py:1) 99',
        'process 7:"python -m tasks.validate";process 9:"python -c x";thread (9): MainThread;a (tasks/images.py:1) 99',
    ]
    shares = {"validate (tasks/validate.py)": 0.7, "imports": 0.2, "the interpreter": 0.1}
    assert where.share_out(lines) == pytest.approx(shares)
    assert where.describe_shares({"a": 0.7, "b": 0.05, "c": 0.04}) == "a 70%, b 5%"


def test_a_stage_is_seen_at_work(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    (workplace.clone / "tasks").mkdir(parents=True)
    (workplace.clone / "tasks/work.py").write_text(WORK)
    (workplace.clone / "given/deep").mkdir(parents=True)
    (workplace.clone / "given/deep/photo").write_bytes(bytes(500))
    described: dict[str, Any] = {"cmd": "python tasks/work.py", "deps": ["tasks/work.py", "given"], "outs": ["made"]}
    look = where.look_at(described, workplace, tmp_path / "flame.svg")
    assert look["shares"]["rest (tasks/work.py)"] > 0.5
    assert sum(look["shares"].values()) == pytest.approx(1)
    assert look["seconds"] > 0.8
    assert (look["read_bytes"], look["written_bytes"]) == (500, 3000)
    assert "rest (work.py" in (tmp_path / "flame.svg").read_text()


def test_an_unknown_stage_is_named(capsys: pytest.CaptureFixture[str], shared_data: Path) -> None:
    with pytest.raises(SystemExit):
        where.main(["--stages", "nonsense"])
    assert "there is no stage nonsense; there are source, ingest," in capsys.readouterr().err


def test_the_disk_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "PROBE_BYTES", 2**20)
    rates = where.measure_disk(tmp_path)
    assert 1e5 < rates["write"] < 1e11
    assert 1e5 < rates["read"] < 1e12
    assert list(tmp_path.iterdir()) == []
    assert json.dumps(rates)
