"""A small disk of its own for a test: a tmpfs that can be filled up and made read-only.

In a user and mount namespace, so that it needs no rights, nobody else sees it, and it is gone with its last process.
"""

import os
import resource
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

HOLD = 'mount -t tmpfs -o size="$1" pawline "$2" && echo mounted && exec cat'
BALLAST = "ballast"
SECONDS = 600.0


class SmallDisk:
    """The disk.

    Attributes:
        folder: Where processes that `run` starts see it.
        inside: Where this process sees it.
    """

    def __init__(self, holder: int, folder: Path) -> None:
        self.folder, self.inside = folder, Path(f"/proc/{holder}/root{folder}")
        self._enter = ["nsenter", f"--target={holder}", "--user", "--mount", "--preserve-credentials"]

    def run(
        self,
        *command: str | Path,
        place: str = "",
        env: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder of the disk, under limits of the module `resource` if there are any."""

        def limit() -> None:
            for number, most in (limits or {}).items():
                resource.setrlimit(number, (most, most))

        return subprocess.run(
            [*self._enter, f"--wdns={self.folder / place}", "--", *map(str, command)],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            preexec_fn=limit,
        )

    def fill(self, free_bytes: int = 0) -> None:
        """Leave so many bytes free."""
        disk = os.statvfs(self.inside)
        ballast = max(0, disk.f_bavail * disk.f_bsize - free_bytes)
        with (self.inside / BALLAST).open("wb") as file:
            if ballast:
                os.posix_fallocate(file.fileno(), 0, ballast)

    def make_room(self) -> None:
        """Undo `fill`."""
        (self.inside / BALLAST).unlink()

    def set_read_only(self, read_only: bool) -> None:
        """Let nothing be written any more, or again."""
        done = self.run("mount", "-o", f"remount,{'ro' if read_only else 'rw'}", self.folder)
        assert done.returncode == 0, done.stderr


@contextmanager
def mounted(folder: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Yield a small disk at a folder; skip the test where the system lets nobody mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh", f"{megabytes}m", str(folder)]
    pipe = subprocess.PIPE
    try:
        holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    except FileNotFoundError:
        pytest.skip("only Linux has `unshare`")
    with holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no small disk here: {holder.stderr.read().strip()}")
        yield SmallDisk(holder.pid, folder)
