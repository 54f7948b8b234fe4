"""The Dockerfile: what goes in, and that it is made as the Makefile makes the environment."""

import re
import tomllib

from tests.conftest import ROOT
from tests.image_steps import Image, context, steps

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_builder_gets_the_code_and_what_installs_it_and_nothing_else() -> None:
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    files = {"requirements.lock", "pyproject.toml", "README.md", "LICENSE"}
    sent = context()
    assert {path.split("/")[0] for path in sent} == packages | files
    assert {path.name for path in (ROOT / "tasks/backbone_layers").iterdir()} <= {path.split("/")[-1] for path in sent}
    assert [path for path in sent if path.endswith(".pyc")] == []


def test_what_is_copied_is_there() -> None:
    image = Image(ROOT)
    for step in steps():
        if step.instruction == "ARG":
            image.env |= dict([step.value.split("=")])
        elif step.instruction == "COPY":
            source = image.filled(step.value.split()[0])
            assert source == "." or source in context()


def test_packages_are_installed_as_everywhere_else() -> None:
    def installs(text: str) -> list[list[str]]:
        lines = re.findall(r"pip install (.*)", text.replace("\\\n", " "))
        of_one = {
            "--quiet",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "requirements.lock",
            "/opt/requirements.lock",
        }
        return [[word for word in line.partition("&&")[0].split() if word not in of_one] for line in lines]

    dockerfile, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Makefile"))
    assert installs(dockerfile) == installs(makefile)
    assert len(installs(dockerfile)) == 2


def test_the_base_is_a_python_that_fits_and_the_user_is_not_root() -> None:
    (base,) = (step.value for step in steps() if step.instruction == "FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert version
    assert version[1] in ("3.11", "3.12", "3.13")
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert [step.value for step in steps() if step.instruction == "USER"] == ["${UID}:${GID}"]
    assert {"UID=1000", "GID=1000"} <= {step.value for step in steps() if step.instruction == "ARG"}
