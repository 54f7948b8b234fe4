"""Damage to files of Pawline's own, and what became of whoever read them."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.stage import PawlineError

Kind = Literal["flipped", "cut short", "emptied", "lost", "swapped"]
WHOLE_FILE: tuple[Kind, ...] = ("flipped", "flipped", "flipped", "cut short", "emptied")
IN_FOLDER: tuple[Kind, ...] = (*WHOLE_FILE, "lost", "swapped")
# What the shell around a stage, or `pawline`, says in one line.
IN_ONE_LINE = (PawlineError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def damaged(
    path: Path, kind: Kind, chance: random.Random, *, quietly: bool = False, put_back: bool = True
) -> Iterator[str]:
    """Let a file be damaged for a while; yield how, for a message.

    Args:
        path: The file.
        kind: How. A swapped one has the bytes of another of its folder, or its own in another order.
        chance: Chooses the place.
        quietly: Keep its time, as a disk that loses a bit does, so that DVC does not look again.
        put_back: What it was, in the end.
    """
    before, status = path.read_bytes(), path.stat()
    changed, how = _damage(path, before, kind, chance)
    path.unlink()  # DVC's files are write-protected, and may be links
    if changed is not None:
        path.write_bytes(changed)
        path.chmod(status.st_mode)  # what DVC finds write-protected in its cache, it believes
        if quietly:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        yield f"{path.name} {how}"
    finally:
        if put_back:
            path.unlink(missing_ok=True)
            path.write_bytes(before)
            path.chmod(status.st_mode)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _damage(path: Path, before: bytes, kind: Kind, chance: random.Random) -> tuple[bytes | None, str]:
    if kind == "lost":
        return None, kind
    if kind == "emptied" or not before:
        return b"", kind
    if kind == "cut short":
        length = chance.randrange(len(before))
        return before[:length], f"cut short to {length}"
    if kind == "swapped":
        others = [other for other in sorted(path.parent.glob(f"*{path.suffix}")) if other.read_bytes() != before]
        return (chance.choice(others).read_bytes() if others else before[::-1]), kind
    place, bit = chance.randrange(len(before)), chance.randrange(8)
    return before[:place] + bytes([before[place] ^ 1 << bit]) + before[
        place + 1 :
    ], f"bit {bit} of byte {place} flipped"


class Tally(NamedTuple):
    """What became of many tries: how many were named, how many made no difference, and what was worse."""

    named: list[str]
    harmless: list[str]
    wrong: list[str]

    @classmethod
    def empty(cls) -> "Tally":
        return cls([], [], [])

    def note(self, how: str, run: Callable[[], object], same: Callable[[], bool], names: tuple[str, ...]) -> None:
        """Run what reads a damaged file.

        Args:
            how: It is damaged.
            run: Reads it.
            same: Says whether what that wrote is what it writes without damage.
            names: One of these must be in the line that says why nothing was written.
        """
        try:
            run()
        except IN_ONE_LINE as error:
            said = str(error)
            good = isinstance(error, FileNotFoundError) or ("\n" not in said and any(name in said for name in names))
            (self.named if good else self.wrong).append(how if good else f"{how}: {said!r}")
        except Exception as error:  # noqa: BLE001 - a user would see its traceback
            self.wrong.append(f"{how}: {type(error).__name__}: {error}")
        else:
            (self.harmless if same() else self.wrong).append(how)

    @property
    def tries(self) -> int:
        return len(self.named) + len(self.harmless) + len(self.wrong)

    @property
    def seen(self) -> str:
        figures = f"{len(self.named):,} named, {len(self.harmless):,} made no difference"
        return f"{figures}; {self.wrong[:5]}" if self.wrong else figures

    @property
    def held(self) -> int:
        return len(self.named) + len(self.harmless)


def contents(*paths: Path) -> Mapping[str, bytes]:
    """Return the bytes of files, and of those in folders, by name."""
    return {
        f"{path.name}/{file.relative_to(path)}": file.read_bytes()
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    }
