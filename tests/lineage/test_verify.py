"""What `verify` says of runs that are whole, incomplete, not committed, and forged with all hashes put right."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from dvc.repo import Repo
from typer.testing import CliRunner

from flows.commands.verify import verify_command
from lineage.git import git
from lineage.links import Link, all_hold
from lineage.lockfile import find_out, parse_lock
from lineage.runs import MODEL_PATH, WORKSPACE, Project, Run, find_run
from lineage.verify import verify
from registry import ledger
from registry.decisions import Plan, decide, deciding, load_key
from registry.register import register
from registry.signing import load_key as users_key
from tasks.dvc_hash import hash_listing
from tasks.stage import PawlineError
from tests.test_pipeline import run

EVALUATION = "reports/metrics/evaluation.json"
VALIDATION = "reports/metrics/validation.json"


def verify_again(folder: Path, what: str | None = None, key: Path | None = None) -> list[Link]:
    project = Project(folder)
    return verify(project, find_run(project, what), registry_key=key)


def broken(links: list[Link]) -> list[tuple[str, str, str]]:
    return sorted((link.status, link.kind, link.name) for link in links if not link.holds)


def commit_all(folder: Path) -> None:
    git(folder, "commit", "--quiet", "--all", "--message", "Change")


def locked_md5(folder: Path, path: str) -> str:
    out = find_out(parse_lock((folder / "dvc.lock").read_bytes()), path)
    assert out is not None
    return out.md5


def dvc_checkout(*targets: str) -> None:
    """Do as `dvc checkout` in the current folder."""
    with Repo() as repo:
        repo.checkout(targets=list(targets))


def put_into_cache(folder: Path, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    path = Project(folder).store.object_path(md5)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return md5


def test_three_runs_are_verified_link_by_link(three_runs: Path) -> None:
    for what in (None, "HEAD~1", "HEAD~2"):
        links = verify_again(three_runs, what)
        assert broken(links) == []
        kinds = {link.kind for link in links}
        assert kinds == {"git", "lock", "graph", "params", "code", "input", "output", "weights", "metrics"}
    names = {link.name for link in links if link.kind == "output"}
    assert {"data/raw", "data/raw/raw-00000.parquet", MODEL_PATH, "reports/index.html"} <= names
    with pytest.raises(PawlineError, match="nothing ran there yet"):
        verify_again(three_runs, "HEAD~3")


def test_what_is_not_here_is_told_from_what_is_in_one_place_only(three_runs: Path) -> None:
    (three_runs / "data/images.parquet").unlink()
    (three_runs / "data/raw/raw-00000.parquet").unlink()
    shutil.rmtree(three_runs / "models/stage1")
    found = verify_again(three_runs)
    inside = {link.name for link in found if link.name.startswith("models/stage1/")}
    gone = {"data/images.parquet", "data/raw/raw-00000.parquet", "models/stage1", *inside}
    assert broken(found) == sorted(("missing", "output", name) for name in gone)
    links = {link.name: link for link in found if link.kind == "output"}
    assert links["data/raw/raw-00000.parquet"].detail == "not in the workspace: `dvc checkout data/raw`"
    assert links["models/stage1/head.keras"].detail == "not in the workspace: `dvc checkout models/stage1`"
    assert all_hold(verify_again(three_runs, "HEAD")), "the cache has all of it"
    dvc_checkout("data/raw", "models/stage1")
    for path in ("data/tfrecords", "reports/index.html", "data/images.parquet"):
        Project(three_runs).store.object_path(locked_md5(three_runs, path)).unlink()
    found = verify_again(three_runs)
    links = {link.name: link for link in found if link.kind == "output"}
    assert broken(found) == [("missing", "output", "data/images.parquet")]
    assert "dvc repro" in links["data/images.parquet"].detail
    assert links["reports/index.html"].detail == "in the workspace only, not in the cache"
    assert links["data/tfrecords"].status == links["data/tfrecords/label.labels.txt"].status == "verified"


def test_what_does_not_belong_there_or_is_no_file_is_tampered_where_a_file_could_be(three_runs: Path) -> None:
    raw, stage1, tfrecords = (three_runs / path for path in ("data/raw", "models/stage1", "data/tfrecords"))
    (raw / "elsewhere").symlink_to(three_runs / "tasks")
    (stage1 / "nowhere").symlink_to("gone")
    (stage1 / "empty/er").mkdir(parents=True)
    os.mkfifo(three_runs / "reports/plots/pipe")
    (raw / "raw-00001.parquet").write_bytes(b"more photos")
    (three_runs / "tasks/backbone_layers/more").symlink_to(three_runs / "models")
    strays = {"data/raw/elsewhere", "models/stage1/nowhere", "models/stage1/empty/er", "reports/plots/pipe"}
    strays.add("data/raw/raw-00001.parquet")
    found = verify_again(three_runs)
    among_code = ("uncommitted", "git", "tasks/backbone_layers/more")
    assert broken(found) == sorted([among_code, *(("tampered", "workspace", name) for name in strays)])
    assert broken(verify_again(three_runs, "HEAD~1")) == [], "the workspace has another run's data/raw"
    (three_runs / "tasks/backbone_layers/more").unlink()
    details = {link.name: link.detail for link in found if not link.holds}
    assert details["data/raw/elsewhere"] == "the run wrote nothing of this name: `rm data/raw/elsewhere`"
    assert details["models/stage1/empty/er"].endswith("`rm -r models/stage1/empty/er`")
    shutil.rmtree(stage1 / "empty")
    for name in strays - {"models/stage1/empty/er"}:
        (three_runs / name).unlink()
    (three_runs / MODEL_PATH).unlink()
    (three_runs / MODEL_PATH / "inside").mkdir(parents=True)
    shutil.rmtree(tfrecords)
    tfrecords.write_text("no folder")
    found = verify_again(three_runs)
    details = {link.name: link.detail for link in found if link.status == "tampered"}
    assert details == {
        MODEL_PATH: f"in the workspace (no file): `rm -r {MODEL_PATH}`, then `dvc checkout {MODEL_PATH}`",
        "data/tfrecords": "no folder is in its place: `rm data/tfrecords`, then `dvc checkout data/tfrecords`",
    }
    assert {link.status for link in found if link.name.startswith("data/tfrecords/")} == {"missing"}
    assert ("tampered", "output", MODEL_PATH) in broken(verify_again(three_runs, "HEAD")), "what is there is looked at"
    shutil.rmtree(three_runs / MODEL_PATH)
    tfrecords.unlink()
    dvc_checkout()
    assert broken(verify_again(three_runs)) == [], "the advice was right"
    (three_runs / MODEL_PATH).unlink()
    (three_runs / MODEL_PATH).symlink_to(Project(three_runs).store.object_path(locked_md5(three_runs, MODEL_PATH)))
    assert broken(verify_again(three_runs)) == [], "a link to the cache, as DVC makes it with cache.type = symlink"


def test_a_clone_with_other_line_endings_is_told_so(three_runs: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", str(three_runs), str(clone))
    assert b"\r\n" in (clone / "params.yaml").read_bytes()
    [link] = [one for one in verify_again(clone) if (one.kind, one.name) == ("git", "params.yaml") and not one.holds]
    assert link.status == "uncommitted"
    assert "line endings only" in link.detail
    for command in re.findall("`(.*?)`", link.detail):
        run(command.split(), clone)
    found = verify_again(clone)
    assert ("uncommitted", "git", "params.yaml") not in broken(found), "the advice was right"
    assert ("uncommitted", "git", "dvc.yaml") in broken(found), "nobody did anything about this one"


# Two blocks with one MD5: X. Wang, D. Feng, X. Lai, H. Yu, "Collisions for Hash Functions MD4, MD5, HAVAL-128 and
# RIPEMD", IACR ePrint 2004/199. MD5 goes on from there alike, whatever is behind them.
BLOCK = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
)
TWIN = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f89"
    "55ad340609f4b30283e4888325f1415a085125e8f7cdc99fd91dbd7280373c5b"
    "d8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0"
    "e99f33420f577ee8ce54b67080280d1ec69821bcb6a8839396f965ab6ff72a70"
)


def test_a_file_with_the_same_md5_and_other_bytes_is_tampered(three_runs: Path, tmp_path: Path) -> None:
    path = "reports/index.html"
    page = (three_runs / path).read_bytes()
    right, twin = BLOCK + page, TWIN + page
    assert hashlib.md5(right, usedforsecurity=False).digest() == hashlib.md5(twin, usedforsecurity=False).digest()
    assert hashlib.sha256(right).digest() != hashlib.sha256(twin).digest()
    replace_output(three_runs, path, right)
    copy = tmp_path / "copy.html"
    copy.write_bytes(right)
    assert all_hold(verify_again(three_runs, str(copy)))
    copy.write_bytes(twin)
    assert broken(verify_again(three_runs, str(copy))) == [("tampered", "file", path)], "not registered yet"
    (three_runs / path).write_bytes(twin)
    [link] = [link for link in verify_again(three_runs) if not link.holds]
    assert (link.status, link.kind, link.name) == ("tampered", "output", path)
    assert hashlib.sha256(twin).hexdigest() in link.detail

    (three_runs / path).write_bytes(right)
    register(Project(three_runs), find_run(Project(three_runs), "HEAD"), reason="a test")
    assert all_hold(verify_again(three_runs, "v1"))
    assert broken(verify_again(three_runs, str(copy))) == [("tampered", "file", path)]
    put_into_cache(three_runs, twin)
    (three_runs / path).write_bytes(twin)
    assert broken(verify_again(three_runs, "v1")) == [("tampered", "entry", path)], "the twin is all there is"
    copy.write_bytes(right)
    assert broken(verify_again(three_runs, str(copy))) == [("tampered", "entry", path)], (
        "the file given is the right one"
    )


def test_a_version_whose_tag_leads_elsewhere_is_none(registered: Path) -> None:
    first, second = (git(registered, "rev-parse", f"classifier@v{number}.0.0").decode().strip() for number in (1, 2))
    git(registered, "replace", second, first)
    assert find_run(Project(registered), "v2").commit == git(registered, "rev-parse", "HEAD").decode().strip()
    assert all_hold(verify_again(registered, "v2"))
    elsewhere = Run("v2.0.0", "version", git(registered, "rev-parse", "HEAD~2").decode().strip())
    links = verify(Project(registered), elsewhere)
    assert broken(links) == [("tampered", "entry", "v2.0.0")]
    git(registered, "update-ref", "-d", "refs/heads/registry")
    links = [link for link in verify_again(registered, "v2") if not link.holds]
    assert {link.status for link in links} == {"missing"}
    assert {link.kind for link in links} == {"tag", "entry"}


def test_an_edit_is_uncommitted_and_a_commit_without_a_run_is_tampered(three_runs: Path) -> None:
    params, code = three_runs / "params.yaml", three_runs / "tasks/features.py"
    params.write_bytes(params.read_bytes() + b"# a remark\n")
    code.write_bytes(code.read_bytes() + b"# a remark\n")
    (three_runs / "tasks/backbone_layers/New.txt").write_text("a layer\n")
    new = ("uncommitted", "git", "tasks/backbone_layers/New.txt")
    edits = [("uncommitted", "git", "params.yaml"), new, ("uncommitted", "git", "tasks/features.py")]
    assert broken(verify_again(three_runs)) == edits
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 3"))
    assert broken(verify_again(three_runs)) == edits, "the run is still that of the committed settings"
    git(three_runs, "add", ".")
    commit_all(three_runs)
    stages = ["fine_tune", "train_head"] if "epochs: 3" in params.read_text().split("train_head")[0] else ["train_head"]
    wrong = [("tampered", "code", "tasks/backbone_layers"), ("tampered", "code", "tasks/features.py")]
    assert broken(verify_again(three_runs)) == wrong + [("tampered", "params", stage) for stage in stages]


def test_a_new_run_is_uncommitted_and_nothing_else(three_runs: Path) -> None:
    for folder in ("data", "models", "reports"):
        shutil.rmtree(three_runs / folder)
    git(three_runs, "checkout", "--quiet", "HEAD~1", "--", "dvc.lock", "params.yaml", "reports")
    dvc_checkout()
    expected = [("uncommitted", "git", "dvc.lock"), ("uncommitted", "git", "params.yaml")]
    assert broken(verify_again(three_runs)) == expected


def forge(folder: Path, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file with everything that names it: workspace, cache, dvc.lock, a commit."""
    values = json.loads((folder / path).read_bytes())
    change(values)
    replace_output(folder, path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def replace_output(folder: Path, path: str, after: bytes) -> None:
    """Let a run have written another file."""
    before = (folder / path).read_bytes()
    (folder / path).write_bytes(after)
    old, new = locked_md5(folder, path), put_into_cache(folder, after)
    lock = (folder / "dvc.lock").read_text()
    lock = lock.replace(f"md5: {old}\n      size: {len(before)}\n", f"md5: {new}\n      size: {len(after)}\n")
    (folder / "dvc.lock").write_text(lock)
    commit_all(folder)


def test_metrics_forged_together_with_their_hashes_are_found(three_runs: Path) -> None:
    forge(three_runs, EVALUATION, lambda values: values.update(accuracy=values["accuracy"] / 2 + 0.1))
    assert broken(verify_again(three_runs)) == [("tampered", "metrics", EVALUATION)]
    forge(three_runs, VALIDATION, lambda values: values["splits"]["train"].update(cat=1))
    links = verify_again(three_runs)
    assert broken(links) == [("tampered", "metrics", EVALUATION), ("tampered", "metrics", VALIDATION)]
    assert all_hold(verify_again(three_runs, "HEAD~2")), "the runs before are as they were"


def test_a_lock_that_contradicts_itself_is_found(three_runs: Path) -> None:
    path = three_runs / "dvc.lock"
    text, md5 = path.read_text(), locked_md5(three_runs, "data/images.parquet")
    last = text.rindex(md5)
    other_input = f"{text[:last]}{'a' * 32}{text[last + 32 :]}"
    path.write_text(other_input.replace("python -m tasks.export", "python -m tasks.exports"))
    commit_all(three_runs)
    both = [("tampered", "graph", "export"), ("tampered", "input", "data/images.parquet")]
    assert broken(verify_again(three_runs)) == both
    path.write_text(text[: text.index("  report:")])
    commit_all(three_runs)
    assert broken(verify_again(three_runs)) == [("missing", "graph", "report")]
    path.write_text(text.replace("schema: '2.0'", 'schema: "2.0"'))
    commit_all(three_runs)
    assert broken(verify_again(three_runs)) == [("tampered", "lock", "dvc.lock")]
    path.write_text("stages: [")
    commit_all(three_runs)
    assert broken(verify_again(three_runs)) == [("tampered", "lock", "dvc.lock")]


def test_a_folder_that_reaches_outside_is_tampered(three_runs: Path) -> None:
    old, outside = locked_md5(three_runs, "reports/plots"), "../../params.yaml"
    md5 = hashlib.md5((three_runs / "params.yaml").read_bytes(), usedforsecurity=False).hexdigest()
    content = json.dumps([{"md5": md5, "relpath": outside}]).encode()
    new = put_into_cache(three_runs, content, ".dir")
    assert new == hash_listing({outside: md5})
    lock = three_runs / "dvc.lock"
    lock.write_text(lock.read_text().replace(old, new))
    commit_all(three_runs)
    [link] = [link for link in verify_again(three_runs) if link.name == "reports/plots" and link.kind == "output"]
    assert link.status == "tampered"
    assert "outside" in link.detail


def test_a_version_and_who_signed_it(registered: Path, tmp_path: Path) -> None:
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    key.write_bytes(users_key().public_pem)
    links = verify_again(registered, "v2", key)
    assert broken(links) == []
    assert {"registry", "decision", "signature", "tag", "entry"} <= {link.kind for link in links}
    assert f"versions/v2.0.0/model.sig of {MODEL_PATH}" in {link.name for link in links}
    assert sum(link.kind == "entry" for link in links) > 100, "SHA-256 of every file"
    other.write_bytes(another_public_key())
    [wrong] = [link for link in verify_again(registered, "v2", other) if not link.holds]
    assert (wrong.kind, wrong.status) == ("signature", "tampered")
    with pytest.raises(PawlineError, match="no registered version"):
        verify_again(registered, "HEAD~2", key)
    with pytest.raises(PawlineError, match="--registry-key takes"):
        verify_again(registered, "v2", registered / "params.yaml")
    Project(registered).store.object_path(locked_md5(registered, "data/source.json")).unlink()
    assert broken(verify_again(registered)) == [], "the workspace has it, and only the lineage cannot be traced"


def another_public_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_what_a_decision_deleted_is_forgotten_and_an_interrupted_one_is_missing(three_runs: Path) -> None:
    project = Project(three_runs)
    register(project, find_run(project, "HEAD~2"), reason="a test")
    md5 = locked_md5(three_runs, "data/raw")
    [photos] = (Project(three_runs).store.object_path(md5),)
    inside = next(file["md5"] for file in json.loads(photos.read_bytes()) if file["relpath"] == "raw-00000.parquet")
    with deciding(project):
        book = ledger.load(three_runs)
        decide(
            book,
            Plan("forget", None, None, None, "asked to", details={"objects": [inside]}),
            load_key(book),
        )
    Project(three_runs).store.object_path(inside).unlink()
    (three_runs / "data/raw/raw-00000.parquet").unlink()
    links = verify_again(three_runs)
    assert all_hold(links)
    [forgotten] = [link for link in links if link.status != "verified"]
    assert (forgotten.name, forgotten.status) == ("data/raw/raw-00000.parquet", "forgotten")
    assert forgotten.detail == "deleted by decision 2"
    git(three_runs, "tag", "--delete", "classifier@v1.0.0")
    assert broken(verify_again(three_runs, "HEAD~2")) == [("missing", "tag", "classifier@v1.0.0")]


def run_verify(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(verify_command)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def test_the_command_says_what_holds_and_what_to_do(three_runs: Path) -> None:
    code, screen = run_verify()
    assert code == 0
    lines = {line.split()[0]: line for line in screen.splitlines()}
    assert lines["features"].endswith("verified")
    assert lines["verified:"].startswith("verified: workspace, ")
    (three_runs / "stray.keras").write_bytes((three_runs / MODEL_PATH).read_bytes())
    code, document = run_verify("stray.keras", "--json")
    found = json.loads(document)
    assert (code, found["verified"], found["links"][0]["kind"]) == (0, True, "file")
    assert found["counts"] == {"verified": len(found["links"])}
    (three_runs / "data/predictions.parquet").write_bytes(b"others")
    code, screen = run_verify()
    assert code == 1
    advice = "in the workspace: `rm data/predictions.parquet`, then `dvc checkout data/predictions.parquet`"
    assert f"  TAMPERED    data/predictions.parquet: {advice}" in screen
    assert "TAMPERED: 1 of " in screen.splitlines()[-1]


def test_without_git_there_is_nothing_to_compare_with(three_runs: Path) -> None:
    shutil.rmtree(three_runs / ".git")
    (three_runs / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    [link] = [link for link in verify(Project(three_runs), WORKSPACE) if not link.holds]
    assert (link.kind, link.status) == ("git", "missing")


def test_a_shallow_clone_has_all_it_needs_of_its_last_run(three_runs: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{three_runs}", str(clone))
    links = verify_again(clone)
    assert {link.status for link in links if link.kind == "git"} == {"verified"}
    assert {link.kind for link in links if not link.holds} == {"output"}
    head = git(three_runs, "rev-parse", "HEAD~1").decode().strip()
    [link] = verify(Project(clone), Run("HEAD~1", "commit", head))
    assert (link.status, "git fetch --unshallow" in link.detail) == ("missing", True)
