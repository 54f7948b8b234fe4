"""Who trains together: read from TF_CONFIG, and compared before TensorFlow has them train."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tasks import training_worker, workers
from tasks.environment import describe_environment
from tasks.stage import PawlineError, TemporaryError
from tasks.workers import Cluster, meet, read_cluster
from tests.conftest import ROOT
from tests.tasks.workers_at_work import free_addresses, tf_config

FACTS = {"Python": "3.11.2", "keras": "3.15.0", "train_head.epochs": "5", "code": "1a2b"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WAIT_SECONDS", 1.0)
    monkeypatch.setattr(workers, "RETRY_SECONDS", 0.05)


def test_the_cluster_is_tensorflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
    assert read_cluster() == Cluster(("a:1", "b:2"), 1)
    assert not workers.is_chief()
    with_chief = {"cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(with_chief))
    assert read_cluster() == Cluster(("a:1", "b:2", "c:3"), 2)
    for alone in ("", " ", tf_config(["a:1"], 0)):
        monkeypatch.setenv("TF_CONFIG", alone)
        assert read_cluster() is None
        assert workers.is_chief()


@pytest.mark.parametrize(
    "text",
    [
        "two workers",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        tf_config(["a:1", "b"], 0),
        tf_config(["a:1", "b:2"], 2),
        tf_config(["a:1", "b:2"], -1),
        tf_config(["a:1", "b:2"], 0).replace('"type": "worker"', '"type": "chief"'),
        tf_config(["a:1", "b:2"], 0).replace('"worker": [', '"ps": ["d:1"], "worker": ['),
    ],
)
def test_a_config_without_sense(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(PawlineError, match=r"^TF_CONFIG is '.*': it must be JSON such as \{\"cluster\": .*\}\}$"):
        read_cluster()


def outcomes(*calls: Callable[[], None]) -> list[PawlineError | None]:
    """What each of some workers, all at the same time, ends with."""
    ends: list[PawlineError | None] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            calls[place]()
        except PawlineError as error:
            ends[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_workers_that_have_the_same_begin(workdir: Path) -> None:
    """Though something else calls, too."""
    addresses = free_addresses(3)

    def stranger() -> None:
        for said in (b"", b"GET / HTTP/1.1\n", b'{"worker": 7, "facts": {}}\n', b"[1]\n"):
            try:
                with socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2])), 1) as connection:
                    connection.sendall(said)
            except OSError:
                return

    chief = [lambda: meet(Cluster(tuple(addresses), 0), "train_head", FACTS)]
    others = [lambda i=i: meet(Cluster(tuple(addresses), i), "train_head", FACTS) for i in (2, 1)]
    assert outcomes(*chief, stranger, *others) == [None] * 4


@pytest.mark.parametrize(
    ("theirs", "stage_name", "message"),
    [
        ({"keras": "3.12.0"}, "train_head", "has keras 3.12.0, and the chief has 3.15.0: all need the same folder, "),
        ({"train_head.epochs": "7"}, "train_head", "has train_head.epochs 7, and the chief has 5: all need the "),
        ({"code": "ffff"}, "train_head", "has code ffff, and the chief has 1a2b: all need the same folder, code, lib"),
        ({"openvino": "1"}, "train_head", "has openvino 1, and the chief has none: all need the same folder, code, "),
        ({}, "fine_tune", "runs fine_tune, and the chief runs train_head"),
    ],
)
def test_a_worker_that_differs_is_refused_by_all(theirs: dict[str, str], stage_name: str, message: str) -> None:
    addresses = tuple(free_addresses(2))
    ends = outcomes(
        lambda: meet(Cluster(addresses, 0), "train_head", FACTS),
        lambda: meet(Cluster(addresses, 1), stage_name, FACTS | theirs),
    )
    for end in ends:
        assert str(end).startswith(f"worker 1 ({addresses[1]}) {message}")
        assert not isinstance(end, TemporaryError)


def test_who_is_missing_is_named() -> None:
    addresses = tuple(free_addresses(3))
    ends = outcomes(
        lambda: meet(Cluster(addresses, 0), "train_head", FACTS),
        lambda: meet(Cluster(addresses, 1), "train_head", FACTS),
    )
    for end in ends:
        assert isinstance(end, TemporaryError)
        assert str(end).startswith(f"worker 2 ({addresses[2]}) did not come within 1 s: start `python -m tasks.train")


def test_no_chief() -> None:
    addresses = tuple(free_addresses(2))
    with pytest.raises(TemporaryError, match=r"^the chief \(127\.0\.0\.1:\d+\) did not answer within 1 s: start `dvc "):
        meet(Cluster(addresses, 1), "train_head", FACTS)


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_that_is_taken(index: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(PawlineError, match=rf"\({address}\) cannot listen at its port \(.*\): free it, or give "):
            meet(Cluster((address, address), index), "train_head", FACTS)


def test_facts_are_of_what_must_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "x.npy").write_bytes(b"12")
    before = workers.describe({"train_head.epochs": 5}, 0, tmp_path)
    assert {"Python", "keras", "numpy", "GPUs", "train_head.epochs", "inputs", "code"} <= before.keys()
    assert workers.describe({"train_head.epochs": 5}, 0, tmp_path) == before
    (tmp_path / "manifest.json").write_text("[]")
    after = workers.describe({"train_head.epochs": 6}, 1, tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"train_head.epochs", "GPUs", "inputs"}


def test_who_waits_too_long_is_ended() -> None:
    """Though it is deaf: here it holds Python's lock, as TensorFlow does."""
    code = "from tasks.workers import ended_after\nwith ended_after({}, 'too long'): sum(range({}))\nprint('done')"
    for seconds, numbers, expected in ((30, 1, (0, "done\n", "")), (0.3, 10**12, (-9, "", "error: too long\n"))):
        command = [sys.executable, "-c", code.format(seconds, numbers)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize("index", [None, 0])
def test_only_another_than_the_chief_waits_for_it(index: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "" if index is None else tf_config(["a:1", "b:2"], index))
    with pytest.raises(PawlineError, match=r"^TF_CONFIG must list several workers and say which of them this is, "):
        training_worker.main([])


def test_unfinished_training_is_carried_on_by_the_same_libraries_alone(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> list[str]:
        """Return what an earlier run had left."""
        found: list[str] = []
        with suppress(KeyboardInterrupt), workers.scratch_dir("train_head", {}) as scratch:
            assert scratch is not None
            found += [path.name for path in scratch.iterdir()]
            (scratch / "epoch-3").touch()
            raise KeyboardInterrupt
        return found

    assert interrupted() == []
    assert interrupted() == ["epoch-3"]
    another = describe_environment() | {"packages": {"tensorflow": "3.0.0"}}
    monkeypatch.setattr(workers, "describe_environment", lambda: another)
    assert interrupted() == []
