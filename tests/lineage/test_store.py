"""Bytes by their hash: from the cache, from a remote, or named as missing; changed ones are refused."""

import hashlib
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lineage import lockfile
from lineage.store import Store, dvc_errors, file_md5
from tasks.stage import PawlineError
from tests.kept_runs import keep_run, make_project, md5_of
from tests.s3 import KEYS, free_port
from tests.test_pipeline import run

METRICS = "reports/metrics/evaluation.json"
INSIDE = "models/stage1/summary.json"


def read_lock(folder: Path) -> lockfile.Lock:
    return lockfile.parse_lock((folder / "dvc.lock").read_bytes())


def replace(path: Path, content: bytes) -> None:
    """Put other bytes in the place of an object, which DVC made read-only and may have linked."""
    path.unlink()
    path.write_bytes(content)


def test_bytes_come_from_the_cache_then_from_a_remote_and_are_checked(three_runs: Path) -> None:
    lock, store = read_lock(three_runs), Store(three_runs)
    for path in (METRICS, INSIDE):
        assert store.read_path(lock, path) == (three_runs / path).read_bytes()
        assert store.find_md5(lock, path) == file_md5(three_runs / path)
    assert store.read_path(lock, "models/stage1/nothing.json") is None
    assert store.read_path(lock, "params.yaml") is None, "git keeps it"
    assert [store.may_have(lock, path) for path in (METRICS, INSIDE, "models/stage1/x", "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert store.remotes == []

    md5 = store.find_md5(lock, METRICS)
    assert md5 is not None
    assert store.where(md5) is None
    run(["dvc", "remote", "add", "--quiet", "empty", str(three_runs.parent / "empty")], three_runs)
    run(["dvc", "remote", "add", "--quiet", "--default", "far", str(three_runs.parent / "far")], three_runs)
    run(["dvc", "push", "--quiet", METRICS, "models/stage1"], three_runs)
    shutil.rmtree(three_runs / ".dvc" / "cache")

    store = Store(three_runs)
    assert store.remotes == ["far", "empty"], "the default one first"
    assert (store.has(md5), store.where(md5)) == (False, "far")
    for path in (METRICS, INSIDE):
        assert store.read_path(lock, path) == (three_runs / path).read_bytes()
    assert store.has(md5), "what was read stays in the cache"
    assert store.read_path(lock, "data/source.json") is None, "nobody pushed it"
    assert store.may_have(lock, "data/features/x"), "its list of files is nowhere, so who knows"

    replace(store.object_path(md5), b"{}")
    with pytest.raises(PawlineError, match=f"^tampered: .*{md5[2:]} does not hold what its name says"):
        store.read_path(lock, METRICS)


def in_remote(folder: Path) -> set[bytes]:
    """What a remote that is a folder has, but for lists of files."""
    return {path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".dir"}


def test_what_was_forgotten_is_neither_pushed_nor_fetched(tmp_path: Path) -> None:
    project = make_project(tmp_path / "here", "far")
    version = keep_run(project, {"raw": {"a": b"photos", "b": b"the photo"}, "page.html": b"a page"}, "v1.0.0")
    lock, store, cache = project.lock(version), project.store, tmp_path / "here/.dvc/cache"
    forgotten = {md5_of(b"the photo"), md5_of(b"a page")}
    assert store.push_outputs(lock, "far", forgotten) == 2, "the list of files is one of them"
    assert in_remote(tmp_path / "far") == {b"photos"}
    assert store.push_outputs(lock, "far", ()) == 2
    shutil.rmtree(cache)
    assert store.fetch_outputs(lock, forgotten) == 2
    assert in_remote(cache) == {b"photos"}


def test_what_the_remote_has_is_pushed_already_and_what_is_nowhere_is_said(tmp_path: Path) -> None:
    project = make_project(tmp_path / "here", "far")
    version = keep_run(project, {"raw": {"a": b"photos", "b": b"more"}}, "v1.0.0")
    lock, store = project.lock(version), project.store
    store.push_outputs(lock, "far", ())
    shutil.rmtree(tmp_path / "here/.dvc/cache")  # as in a clone
    assert store.push_outputs(lock, "far", ()) == 0
    shutil.rmtree(tmp_path / "far")
    (tmp_path / "far").mkdir()
    with pytest.raises(
        PawlineError, match=r"^2 files are neither in the remote far nor in the cache, such as \w{32}: "
    ):
        store.push_outputs(lock, "far", ())


def test_a_remote_that_is_away_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": nobody, "AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    project = make_project(tmp_path / "here", "away", "near")
    version = keep_run(project, {"a": b"one", "b": b"two"}, "v1.0.0")
    lock, md5 = project.lock(version), md5_of(b"one")
    project.store.push_outputs(lock, "near", ())
    (tmp_path / "here/.dvc/config.local").write_text("['remote \"away\"']\nurl = s3://away/cache\n")
    shutil.rmtree(tmp_path / "here/.dvc/cache")
    store = Store(tmp_path / "here")
    assert store.remotes == ["away", "near"]
    assert store.where(md5) == "near"
    assert store.read(md5) == b"one"
    assert store.fetch_outputs(lock, ()) == 1
    with pytest.raises(PawlineError, match=nobody):
        store.where(md5_of(b"three"))
    with pytest.raises(PawlineError, match=nobody):
        store.fetch([md5, md5_of(b"three")])


def test_a_project_without_git_has_a_store_too(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    store = Store(tmp_path)
    content = b"bytes"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert store.read(md5) is None
    store.object_path(md5).parent.mkdir(parents=True)
    store.object_path(md5).write_bytes(content)
    assert store.read(md5) == content


def test_what_dvc_has_to_say_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PawlineError, match=r"dvc status") as caught:
        Store(tmp_path / "no project").cache_dir  # noqa: B018 - a property that asks DVC
    assert "\n" not in str(caught.value)
    with pytest.raises(PawlineError, match=r"dvc-s3"), dvc_errors():
        raise ImportError("s3 is supported, but requires 'dvc-s3' to be installed")


def test_a_files_md5_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    assert file_md5(tmp_path / "file") == hashlib.md5(content, usedforsecurity=False).hexdigest()


class Nothing(BaseHTTPRequestHandler):
    """Has nothing and takes nothing."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        # an answer before the end of what is sent breaks the pipe now and then, and that error names no address
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + len(b"\r\n"))
        self.rfile.readline()
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_a_remote_that_takes_nothing_is_one_line_without_its_password(
    three_runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = ["url = http://me:letmein@127.0.0.1:{}/cache", "auth = basic", "user = me", "password = letmein"]
        text = "['remote \"web\"']\n" + "\n".join(settings).format(server.server_port)
        (three_runs / ".dvc/config.local").write_text(text)
        with pytest.raises(
            PawlineError, match=r"^\d+ files could not be copied to the remote web \(.+\): run"
        ) as caught:
            Store(three_runs).push_outputs(read_lock(three_runs), "web", ())
        server.shutdown()
    said = str(caught.value) + "".join(capfd.readouterr())
    assert f"***@127.0.0.1:{server.server_port}" in said
    assert "letmein" not in said
    assert "\n" not in said
