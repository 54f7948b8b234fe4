"""Digests of an output folder's files, kept in the folder: damage is found where a stage reads, before it computes.

DVC reads a file again only when its time or size changed. What a disk or a copy lost, it does not see, nor that an
object of its cache is damaged; and an array of features has no checksum of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from blake3 import blake3

from tasks import stage
from tasks.parallel import available_processors
from tasks.stage import SEAL

Digests = dict[str, str]  # BLAKE3 by file name
NOTHING: Mapping[str, str] = {}


def seal(folder: Path, known: Mapping[str, str] = NOTHING) -> None:
    """Write the digests of a folder's files into it; those that are known are not computed again."""
    paths = _files(folder)
    digests = dict(known) | digests_of(path for path in paths if path.name not in known)
    stage.write_json({path.name: digests[path.name] for path in paths}, folder / SEAL)


def check(
    folder: Path, wanted: Callable[[str], bool] = lambda _: True, digest: Callable[[Path], str] | None = None
) -> Digests:
    """Read a folder's files to their ends, and compare them with its seal.

    A folder without a seal was not made by a stage, and is taken as it is.

    Args:
        folder: A stage's output.
        wanted: Says of a name whether the file is looked at.
        digest: What it was sealed with, where that is not the BLAKE3 of the files.

    Returns:
        Their digests.

    Raises:
        PawlineError: A file is missing, is not the one that was written, or was not there.
    """
    found = {path.name: path for path in _files(folder) if wanted(path.name)}
    seal_path, take = folder / SEAL, digest or digest_of
    if not seal_path.exists():
        return {name: take(path) for name, path in found.items()}
    known = {name: digest for name, digest in stage.read_json(seal_path).items() if wanted(name)}
    for name in sorted(known.keys() | found.keys()):
        if name not in found:
            raise stage.damaged(folder / name, "missing")
        if name not in known:
            raise stage.damaged(folder / name, f"of another run: {SEAL} beside it does not know it")
    digests = {name: take(path) for name, path in found.items()}
    wrong = next((name for name in sorted(known) if digests[name] != known[name]), None)
    if wrong is not None:
        raise stage.damaged(folder / wrong, "not what was written")
    return digests


def digests_of(paths: Iterable[Path]) -> Digests:
    """Return the digests of files by their names."""
    return {path.name: digest_of(path) for path in paths}


def digest_of(path: Path) -> str:
    """Return a file's BLAKE3, in hexadecimal: four times the speed of SHA-256 on two processors, and as safe."""
    digest: str = blake3(max_threads=available_processors()).update_mmap(path).hexdigest()
    return digest


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != SEAL)
