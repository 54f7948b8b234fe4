"""How folders become labels and splits, the same for every archive and directory.

Folders that all candidates share are stripped. If every folder that is then at the top is named like a split
(`train`, `validation`, `test`, ...), it is the predefined split and the next folder is the class; else the top folder
is the class. Deeper folders belong to their class; images beside the class folders belong to none and are left out.
"""

import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tasks.stage import PawlineError

MAX_FILE_BYTES = 256 * 2**20  # far above any photo; one file is held in memory at a time
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
JPEG_EXTENSIONS = {"jpg", "jpeg", "jpe", "jfif"}
OTHER_EXTENSIONS = {
    "apng",
    "avif",
    "bmp",
    "dib",
    "gif",
    "heic",
    "heif",
    "ico",
    "jp2",
    "pbm",
    "pgm",
    "png",
    "pnm",
    "ppm",
}
IMAGE_EXTENSIONS = JPEG_EXTENSIONS | OTHER_EXTENSIONS | {"tga", "tif", "tiff", "webp"}
SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})


class Entry(NamedTuple):
    """One file of a source; `read` must be called, if at all, before the next entry is asked for."""

    path: str  # inside the source, "/" between folders
    read: Callable[[], bytes]
    left_out: str = ""  # why it cannot be taken, whatever its name


class Place(NamedTuple):
    """Where a candidate belongs."""

    label: str
    split: str  # train, val, test, or empty


class Layout(NamedTuple):
    """Where the class folders are."""

    depth: int  # shared folders above
    has_splits: bool

    def place(self, path: str) -> Place | None:
        """Return the label and split of a candidate; None for one that lies beside the class folders."""
        folders = path.split("/")[self.depth : -1]
        split = SPLIT_NAMES[folders.pop(0).lower()] if self.has_splits and folders else ""
        label = label_of(folders[0]) if folders else ""
        return Place(label, split) if label else None


def label_of(folder: str) -> str:
    """Return a class folder's label: lower case, stripped, one spelling of accents (macOS writes another)."""
    return unicodedata.normalize("NFC", folder).strip().lower()


def left_out(path: str) -> str:
    """Return why a file cannot be a candidate by its name, or an empty string."""
    if any(name.startswith(".") or name.lower() in SYSTEM_NAMES for name in path.split("/")):
        return "hidden or system"
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return "not named as an image" if dot and stem and extension.lower() not in IMAGE_EXTENSIONS else ""


def find_layout(paths: Iterable[str], where: str) -> Layout:
    """Find the class folders from the candidates' paths.

    Args:
        paths: The candidates.
        where: The source, for the messages.

    Raises:
        PawlineError: There are no images, no class folders, or only one class.
    """
    folders = {path.rpartition("/")[0] for path in paths}
    if not folders:
        raise PawlineError(f"{where} holds no images: it must hold a folder of images for each class")
    branches = [folder.split("/") for folder in sorted(folders) if folder]
    if not branches:
        raise PawlineError(f"{where} holds images but no class folders: put each class's images into its own folder")
    depth = 0
    while len(tops := {branch[depth] for branch in branches if len(branch) > depth}) == 1:
        depth += 1
    if not tops:
        raise _one_class(where, label_of(min(branches, key=len)[-1]))
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if len(splits) > 1 and splits != tops:
        raise PawlineError(
            f"{where} has split folders ({', '.join(sorted(splits))}) beside other folders "
            f"({', '.join(sorted(tops - splits)[:5])}): name every one of them train, validation or test, or none"
        )
    has_splits = splits == tops  # a train beside a truck is a class
    layout = Layout(depth, has_splits)
    labels = {place.label for branch in branches if (place := layout.place("/".join([*branch, "image"])))}
    if unprintable := sorted(label for label in labels if not label.isprintable()):
        raise PawlineError(
            f"{where} has a class folder with a control character in its name: rename {unprintable[0]!r}"
        )
    if not labels:
        raise PawlineError(f"{where} has split folders ({', '.join(sorted(tops))}) without class folders in them")
    if len(labels) == 1:
        raise _one_class(where, *labels)
    return layout


def _one_class(where: str, label: str) -> PawlineError:
    return PawlineError(f"{where} holds one class only, {label!r}: a classifier needs a folder for each of two or more")
