import os
import threading
from pathlib import Path

import pytest

from tasks.named_files import named_file


def write(path: Path, text: str) -> None:
    with named_file(path) as unfinished:
        unfinished.write_text(text)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    write(path, "earlier")

    def interrupted() -> None:
        with named_file(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "earlier"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_one_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    target, link, loop = tmp_path / "there/file", tmp_path / "link", tmp_path / "loop"
    link.symlink_to("there/file")
    for text in ("first", "second"):  # a link to nothing, and one to a file
        write(link, text)
        assert (link.is_symlink(), target.read_text()) == (True, text)
    loop.symlink_to("loop")
    write(loop, "text")
    assert loop.read_text() == "text"


def test_a_pipe_stays_one_and_is_written_to(tmp_path: Path) -> None:
    pipe, link, received = tmp_path / "pipe", tmp_path / "link", []
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    for path in (pipe, link):
        reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
        reader.start()
        write(path, "text")
        assert pipe.is_fifo()
        reader.join(60)
    assert received == ["text", "text"]
