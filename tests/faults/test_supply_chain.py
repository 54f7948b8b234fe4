"""What is installed and downloaded is what was meant: hashes, a list of all that there is, and who knows of flaws.

That weights and archives with another digest are refused: tests/tasks/test_backbone.py, tests/tasks/sources.
"""

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from lineage import sbom
from lineage.sbom import HASH, canonical, read_hashes
from tests import audit
from tests.conftest import ROOT
from tests.faults.conftest import Report, Tries
from tests.faults.results import Fault
from tests.image_steps import steps

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SBOM = f"{sys.executable} -m lineage.sbom"
OURS = {"pawline", "pip"}  # installed before, or from here


def pinned() -> list[str]:
    """Return the requirements of the lock file, each in one line."""
    return [line for line in LOCK.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_requirement_is_pinned_and_has_hashes_and_no_place(report: Report) -> None:
    form = re.compile(r"[a-z0-9-]+==[^\s;@]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    bad = [line for line in pinned() if not form.fullmatch(" ".join(line.split()))]
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|--index|--extra-index|--find-links|-e|-r)\b", LOCK, re.MULTILINE)
    seen = str(bad or f"{len(HASH.findall(LOCK)):,} SHA-256 digests, no address")
    what = "requirements of the lock file: one version, digests, no address"
    report(Fault.SUPPLY, what, tries=len(pinned()), held=len(pinned()) - len(bad), seen=seen)


def test_the_lock_file_has_all_that_is_asked_for(report: Report) -> None:
    versions = dict(read_hashes(LOCK).keys())
    extras = PROJECT["optional-dependencies"]
    asked = [Requirement(text) for text in [*PROJECT["dependencies"], *extras["cpu"], *extras["dev"]]]
    for package in importlib.metadata.distributions():
        if canonical(package.name) in versions:
            needed = [Requirement(text) for text in package.requires or []]
            asked += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    missing = [
        str(each)
        for each in asked
        if not each.specifier.contains(versions.get(canonical(each.name), "0.dev0"), prereleases=True)
    ]
    what = "requirements of pyproject.toml and of every package: pinned, and in the range"
    report(Fault.SUPPLY, what, tries=len(asked), held=len(asked) - len(missing), seen=str(missing or "all of them"))


def test_what_is_installed_is_what_the_lock_file_pins(report: Report) -> None:
    locked = read_hashes(LOCK)
    installed = {(canonical(each.name), each.version) for each in importlib.metadata.distributions()}
    strange = sorted(f"{name} {version}" for name, version in installed - locked.keys() if name not in OURS)
    what = "installed packages: pinned in this version"
    report(Fault.SUPPLY, what, tries=len(installed), held=len(installed) - len(strange), seen=str(strange or "all"))


def wheel(folder: Path, name: str, content: str) -> Path:
    """Write a wheel with one module in it."""
    files = {
        f"{name}.py": content,
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    rows = [f"{path},sha256={digests[path].rstrip(b'=').decode()},{len(text)}" for path, text in files.items()]
    files[f"{name}-1.0.dist-info/RECORD"] = "\n".join([*rows, f"{name}-1.0.dist-info/RECORD,,\n"])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


def install(index: Path, requirement: str) -> "subprocess.CompletedProcess[str]":
    """Install as `make setup` does, from a folder in the index's place."""
    [flags] = [
        line.split()
        for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
        if "-r requirements" in line
    ]
    (index / "requirements.lock").write_text(requirement)
    own = [
        "--isolated",
        "--no-index",
        "--find-links",
        str(index),
        "--target",
        str(index / "installed"),
        "--no-cache-dir",
    ]
    command = [sys.executable, "-m", "pip", *flags[1:], *own]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(command, cwd=index, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_package_that_was_changed_is_not_installed(tmp_path: Path, tries: Tries, report: Report) -> None:
    good = hashlib.sha256(wheel(tmp_path, "pets", "x = 1\n").read_bytes()).hexdigest()
    requirement = f"pets==1.0 --hash=sha256:{good}\n"
    changes = [f"x = {number}\n" for number in range(2, 2 + tries(1, 5))]
    refused = []
    for content in changes:
        wheel(tmp_path, "pets", content)
        done = install(tmp_path, requirement)
        refused.append(done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr)
    assert not (tmp_path / "installed").exists()
    unpinned = install(tmp_path, "pets==1.0\n")
    assert "Hashes are required" in unpinned.stderr
    wheel(tmp_path, "pets", "x = 1\n")
    done = install(tmp_path, requirement)
    assert (done.returncode, (tmp_path / "installed/pets.py").read_text()) == (0, "x = 1\n"), done.stderr
    what = "packages whose content was changed in the index, installed as `make setup` does"
    report(Fault.SUPPLY, what, tries=len(changes) + 1, held=sum(refused) + (unpinned.returncode != 0), seen="refused")


def test_nothing_is_installed_without_hashes() -> None:
    written = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "Dockerfile", ".ci/run"))
    installs = re.findall(r"pip install ([^&|\n]*)", written.replace("\\\n", " "))
    assert len(installs) == 4
    for flags in installs:
        assert "--no-deps" in flags
        assert "--require-hashes" in flags or re.search(r"--no-build-isolation .*--editable \.", flags)
    assert [step.value for step in steps() if step.instruction == "ADD"] == [], "nothing is downloaded into the image"


def test_the_environment_has_a_bill_of_materials(capsys: pytest.CaptureFixture[str], report: Report) -> None:
    sbom.main(["--lock", str(ROOT / "requirements.lock")])
    printed = capsys.readouterr().out
    bom = json.loads(printed)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(printed) is None
    installed = {canonical(each.name): each.version for each in importlib.metadata.distributions()}
    installed.pop("pawline", None)
    assert {each["name"]: each["version"] for each in bom["components"]} == installed
    without = [each["name"] for each in bom["components"] if not each.get("hashes") and each["name"] not in OURS]
    numpy = next(each for each in bom["components"] if each["name"] == "numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{installed['numpy']}"
    what = "packages in the bill of materials (CycloneDX 1.6, by its schema): with digests"
    total = len(bom["components"])
    report(Fault.SUPPLY, what, tries=total, held=total - len(without), seen=str(without or "all of them"))


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"cd {ROOT} && {SBOM} | head -c 1", "0 0", ""),
        (
            f"cd {ROOT} && ulimit -f 1 && {SBOM} > $OLDPWD/bom.json",
            "1",
            "error: the document cannot be written (File t",
        ),
        (SBOM, "1", "error: requirements.lock: No such file or directory: run this in the project's folder, or give"),
    ],
)
def test_a_bill_of_materials_that_cannot_be_made_or_read_is_one_line(
    command: str, code: str, said: str, tmp_path: Path
) -> None:
    script = f'{command}; echo "${{PIPESTATUS[@]}}" > {tmp_path}/codes'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tmp_path / "codes").read_text().strip() == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said), done.stderr


def test_what_make_sets_up_first_is_not_in_what_it_prints(tmp_path: Path) -> None:
    """`make sbom > bom.json` in a fresh clone, up to the environment that cannot be made here."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ]\n')
    python.chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "--silent", f"PYTHON={python}", "sbom"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (done.stdout, done.stderr.splitlines()[0]) == ("", "setting up .venv (two minutes the first time)")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (None, 0, audit.UNKNOWN),
        ('{"dependencies": [{"name": "x", "skip_reason": "not found"}]}', 0, audit.UNKNOWN),
        (
            '{"dependencies": [{"name": "x", "version": "1", "vulns": []}, {"name": "y", "skip_reason": ""}]}',
            0,
            "audit: 1 of 2 pinned packages are known there, 0 vulnerabilities",
        ),
        (
            '{"dependencies": [{"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}',
            1,
            "audit: x 1: PYSEC-1, mended in 2",
        ),
    ],
)
def test_what_is_said_of_vulnerabilities(answer: str | None, code: int, said: str) -> None:
    lines, ended = audit.summarize(answer)
    assert (lines[0], ended) == (said, code)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pip_audit/__init__.py": ""}, "No module named pip_audit.__main__"),  # as where there is no pip_audit at all
        ({"pip_audit.py": "raise ImportError('half of it is gone')"}, "ImportError: half of it is gone"),
        ({"pip_audit.py": "import os; os._exit(9)"}, "it ended with 9"),
        ({"pip_audit.py": "import sys; sys.exit('ERROR: no such option: --disable-pip')"}, "no such option"),
    ],
)
def test_an_audit_that_does_not_work_is_no_network(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "tests.audit"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (2, 1, "")
    assert done.stdout.startswith("audit: pip-audit does not work: ")
    assert said in done.stdout


def test_no_network_is_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"https_proxy": "http://127.0.0.1:1", "no_proxy": ""}.items():  # nothing listens there
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)
    (tmp_path / "lock").write_text("no-such-package-of-pawline==1.0\n")  # nor has pip cached an answer
    assert audit.audit(tmp_path / "lock") is None


def test_the_audit_ends_in_time_and_says_what_it_knows(whole_suite_only: None, report: Report) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.startswith("audit: ")
    report(
        Fault.SUPPLY, "`make audit`", tries=1, held=int(done.returncode in (0, 1)), seen=done.stdout.splitlines()[-1]
    )
