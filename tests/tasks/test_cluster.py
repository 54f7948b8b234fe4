"""Stages on a real Dask cluster of processes on loopback: the same bytes, whoever dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tasks import cluster as cluster_module
from tasks import raw, records
from tasks.cluster import SCHEDULER, map_cluster
from tasks.features import features
from tasks.ingest import ingest
from tasks.preprocess import preprocess
from tasks.source import source
from tasks.stage import PawlineError, TemporaryError
from tasks.validate import validate
from tests.conftest import ROOT
from tests.tasks.clusters import Cluster, running
from tests.tasks.conftest import DATA, FEATURES, IMAGE, PARAMS, VALIDATE, Run, changed
from tests.tasks.test_parallel import die_on_three, fail_on_three, square_late


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster"), workers=2) as started:
        yield started


def square_slowly(number: int) -> int:
    time.sleep(0.1)
    return number**2


def test_results_come_in_order(cluster: Cluster) -> None:
    assert list(map_cluster(square_late, range(12), cluster.address)) == [n**2 for n in range(12)]


def test_workers_are_not_profiled(cluster: Cluster) -> None:
    list(map_cluster(square_late, range(4), cluster.address))
    with cluster.client() as client:
        running = client.run(lambda dask_worker: dask_worker.periodic_callbacks["profile"].is_running())
    assert list(running.values()) == [False] * 2


def test_chunks_are_taken_as_they_are_needed(cluster: Cluster) -> None:
    taken = []
    results = map_cluster(square_late, (taken.append(n) or n for n in range(100)), cluster.address)  # type: ignore[func-returns-value]
    next(results)
    results.close()  # type: ignore[attr-defined]
    with cluster.client() as client:
        threads = sum(client.nthreads().values())
    assert len(taken) == 2 * threads


def test_an_exception_of_the_function_comes_through(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="three"):
        list(map_cluster(fail_on_three, range(20), cluster.address))


def outgrow(number: int) -> int:
    if number == 1:
        raise MemoryError
    return number


def test_a_chunk_that_outgrows_a_worker_is_rescued_here(cluster: Cluster) -> None:
    assert list(map_cluster(outgrow, range(3), cluster.address, rescue=lambda number: -number)) == [0, -1, 2]


def test_a_lost_workers_chunks_are_done_again(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as started:
        with started.losing_one():
            assert list(map_cluster(square_slowly, range(20), started.address)) == [n**2 for n in range(20)]
        assert sum(worker.poll() == -signal.SIGKILL for worker in started.workers) == 1


def test_a_chunk_that_kills_its_workers_is_named(tmp_path: Path) -> None:
    with running(tmp_path, workers=6) as started:
        with pytest.raises(
            PawlineError, match=r"^4 workers died one after the other while they worked on 3: if"
        ) as told:
            list(map_cluster(die_on_three, range(8), started.address))
        assert "\n" not in str(told.value)
        assert sum(worker.poll() == -signal.SIGKILL for worker in started.workers) == 4
        started.add_workers(3)
        rescued = list(map_cluster(die_on_three, range(8), started.address, rescue=lambda number: -number))
        assert rescued == [0, 1, 2, -3, 4, 5, 6, 7]


def test_no_scheduler_and_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1)
    with pytest.raises(
        TemporaryError, match=r"^no Dask scheduler at tcp://127\.0\.0\.1:9 .*: start it, or unset DASK_"
    ):
        list(map_cluster(square_late, [1], "tcp://127.0.0.1:9"))
    with pytest.raises(TemporaryError, match=r"^no Dask scheduler at nonsense://1 "):
        list(map_cluster(square_late, [1], "nonsense://1"))
    with running(tmp_path, workers=0) as started, pytest.raises(TemporaryError, match="has no workers: start some"):
        list(map_cluster(square_late, [1], started.address))


def test_workers_that_differ_are_refused_before_work_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "tasks", other / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "tasks/images.py").write_text((other / "tasks/images.py").read_text() + "# changed\n")
    with running(tmp_path, workers=0) as started:
        started.add_workers(1, code=other)
        with pytest.raises(PawlineError, match=r"^the Dask worker at tcp://.* has another version of Pawline's code: "):
            list(map_cluster(square_late, [1], started.address))
    assert "numpy" in cluster_module.describe_side("/").versions


def test_libraries_and_folder_are_compared() -> None:
    here = cluster_module.describe_side(str(Path.cwd()))
    assert cluster_module._difference(here, here) == ""
    old = here._replace(versions=here.versions | {"pillow": "11.0"})
    assert cluster_module._difference(here, old).startswith("has pillow 11.0, and here is ")
    assert cluster_module._difference(here, here._replace(python="3.9.1")).startswith("runs Python 3.9.1")
    away = cluster_module.describe_side("/no/such/folder")
    assert cluster_module._difference(here, away).startswith(f"does not see {Path.cwd()}: share the project's folder")
    missing = ModuleNotFoundError(name="tasks")
    assert cluster_module._difference(here, missing).startswith("has no module tasks: install this version")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_stage_by_its_command_uses_the_cluster_and_writes_the_same_bytes(
    cluster: Cluster, small_run: Run, workdir: Path
) -> None:
    """`python -m tasks.preprocess`: the stage's module is `__main__`, which workers have not."""
    (workdir / "params.yaml").write_text("image: {size_px: 96, resize: squash}\n")
    command = [sys.executable, "-m", "tasks.preprocess", "--raw-dir", str(small_run.raw_dir)]
    command += ["--images-path", str(small_run.images_path), "--tfrecords-dir", "tfrecords"]
    command += ["--record-out", "tfrecords.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), SCHEDULER: cluster.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert contents(workdir / "tfrecords") == contents(small_run.tfrecords_dir)


def test_every_stage_writes_the_same_bytes_though_a_worker_dies_in_each(
    shared_data: Path, small_run: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real photos: validate, preprocess and features, a worker killed in each while it works on a chunk."""
    monkeypatch.setattr(raw, "ROW_GROUP_RECORDS", 32)  # chunks enough for few photos
    monkeypatch.setattr(records, "IMAGES_PER_SHARD", 32)
    with zipfile.ZipFile(shared_data / "petimages.zip") as whole, zipfile.ZipFile("some.zip", "w") as some:
        for name in sorted(whole.namelist())[::3]:
            some.writestr(name, whole.read(name))
    data = changed(DATA, source="archive", path="some.zip")
    params = PARAMS.model_copy(update={"data": data})
    source(source_out=Path("source.json"), weights_out=Path("weights.json"), params=params)
    ingest(source_json=Path("source.json"), raw_dir=Path("raw"), params=data)
    for step in steps(Path("here"), small_run.backbone_dir):
        step()
    with running(workdir / "here", workers=2) as started:
        monkeypatch.setenv(SCHEDULER, started.address)
        for deaths, step in enumerate(steps(Path("there"), small_run.backbone_dir), start=1):
            started.add_workers(1)
            with started.losing_one():
                step()
            assert sum(worker.poll() == -signal.SIGKILL for worker in started.workers) == deaths
    for name in ("validation.json", "images.parquet", "tfrecords.json", "features.json"):
        assert Path("here", name).read_bytes() == Path("there", name).read_bytes()
    for name, files in (("verdicts", 2), ("docs", 4), ("tfrecords", 4), ("features", 4)):
        assert contents(Path("here", name)) == contents(Path("there", name))
        assert len(contents(Path("there", name))) >= files


def steps(out: Path, backbone_dir: Path) -> list[Callable[[], object]]:
    """The stages that go to a cluster, on data/raw's photos."""
    images, tfrecords = out / "images.parquet", out / "tfrecords"
    out.mkdir()
    return [
        partial(
            validate,
            raw_dir=Path("raw"),
            images_out=images,
            verdicts_dir=out / "verdicts",
            docs_out=out / "docs",
            metrics_out=out / "validation.json",
            params=VALIDATE,
        ),
        partial(
            preprocess,
            raw_dir=Path("raw"),
            images_path=images,
            tfrecords_dir=tfrecords,
            record_out=out / "tfrecords.json",
            params=IMAGE,
        ),
        partial(
            features,
            tfrecords_dir=tfrecords,
            backbone_dir=backbone_dir,
            features_dir=out / "features",
            record_out=out / "features.json",
            params=changed(FEATURES, views=1),
            image=IMAGE,
            unfrozen_layers=30,
        ),
    ]
