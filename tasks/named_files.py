"""Files to write whose names the user gave: whatever lies there stays what it is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.stage import whole_file


@contextmanager
def named_file(path: Path) -> Iterator[Path]:
    """Yield a path to write; what is written replaces the file when the block ends well.

    Of a symbolic link, it replaces the file that the link leads to. A device or a pipe is written to as it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    with whole_file(Path(os.path.realpath(path))) as unfinished:  # which, unlike Path.resolve, takes a link to itself
        yield unfinished
