"""The Dockerfile's steps, read for the tests, and carried out in a plain folder where no container engine runs.

    python -m tests.image_steps FOLDER

What is in /opt of the image is below the folder then. Steps that need a system of their own (apt-get, users) are left
out.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import typer
from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parent.parent
OF_THE_SYSTEM = ("apt-get", "groupadd")


class Step(NamedTuple):
    """An instruction, in capitals, and what follows it."""

    instruction: str
    value: str


def steps() -> list[Step]:
    """Return the steps of the Dockerfile, comments left out."""
    parsed = DockerfileParser(path=str(ROOT)).structure
    found = [Step(one["instruction"], one["value"]) for one in parsed]
    return [step for step in found if step.instruction != "COMMENT"]


def context() -> set[str]:
    """Return the files that .dockerignore lets COPY see, as docker-py reads it."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    found = exclude_paths(str(ROOT), [line for line in lines if line and not line.startswith("#")])
    return {path for path in found if (ROOT / path).is_file()} - {"Dockerfile", ".dockerignore"}  # are for the builder


class Image:
    """A folder in which steps are carried out as a builder would in an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = "/"
        here = Path(sys.executable).resolve().parent  # Python without its packages, as in the base image
        self.env = {"PATH": f"{here}:/usr/bin:/bin", "HOME": str(root)}

    def carry_out(self, step: Step) -> None:
        """Do what a step says; a command that fails ends everything."""
        typer.echo(f"{step.instruction} {step.value}")
        if step.instruction in ("ARG", "ENV"):
            for assignment in shlex.split(step.value):
                key, _, value = assignment.partition("=")
                self.env[key] = self.below(self.filled(value))
        elif step.instruction == "WORKDIR":
            self.workdir = step.value
            Path(self.below(step.value)).mkdir(parents=True, exist_ok=True)
        elif step.instruction == "COPY":
            self.copy(*map(self.filled, shlex.split(step.value)))
        elif step.instruction == "RUN" and not step.value.startswith(OF_THE_SYSTEM):
            self.run(["sh", "-c", self.below(step.value)])

    def copy(self, source: str, target: str) -> None:
        """Copy a file of the context, or all of it."""
        for name in sorted(context()) if source == "." else [source]:
            to = Path(self.below(str(Path("/", self.workdir, target))), name if source == "." else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to)

    def run(self, command: list[str]) -> None:
        """Run a command in the image's folder and environment, and no other."""
        subprocess.run(command, cwd=self.below(self.workdir), env=self.env, check=True)

    def filled(self, text: str) -> str:
        """Return a text with its variables filled in."""
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.env[found[1]], text)

    def below(self, text: str) -> str:
        """Return a text whose paths of the image are those in the folder."""
        return re.sub(r"(?<![\w/.])/(?=opt/|opt$)", f"{self.root}/", text)


def main() -> None:
    """Carry out all steps, and see whether what came out works."""
    image = Image(Path(sys.argv[1]).resolve())
    for step in steps():
        image.carry_out(step)
    image.run(["pawline", "--help"])
    image.workdir = "/opt"
    image.run(["python", "-c", "import dvc.repo, flows.stage, prefect, tasks.train_head, tensorflow; print('imports')"])


if __name__ == "__main__":
    os.umask(0o022)
    main()
