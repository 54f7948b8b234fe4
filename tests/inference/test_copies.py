import errno
import os
import resource
import time
from pathlib import Path

import pytest

from inference.answers import Answer
from inference.copies import Copies, name_of, safe_name
from inference.inputs import Photo


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        (" . ", "unnamed"),
        ("a\\b\0c", "a_b_c"),
    ],
)
def test_a_name_is_that_of_one_file_in_its_folder(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize(("text", "end"), [("é" * 300 + ".jpeg", ".jpeg"), ("x" * 300, "x"), ("x." + "y" * 300, "y")])
def test_a_long_name_fits_and_keeps_its_ending(text: str, end: str, tmp_path: Path) -> None:
    (tmp_path / f"{safe_name(text)}-99999").touch()
    assert safe_name(text).endswith(end)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("photos/deep/cat.jpg", "cat.jpg"),
        ("https://example.com/a/cat%20one.jpg?size=9", "cat one.jpg"),
        ("https://example.com/..%2F..%2Fevil%0A.jpg", "evil_.jpg"),
        ("https://example.com", "unnamed"),
        ("-", "standard-input"),
    ],
)
def test_a_photo_keeps_its_own_name(name: str, short: str) -> None:
    assert name_of(Answer(Photo(name))) == short


def test_photos_are_sorted_and_nothing_is_overwritten(tmp_path: Path) -> None:
    for folder, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(content)
        os.utime(tmp_path / folder / "x.jpg", (1e9, 1e9))
    out = tmp_path / "sorted"
    answers = [
        Answer(Photo(str(tmp_path / folder / "x.jpg")), label="cat", content=(tmp_path / folder / "x.jpg").read_bytes())
        for folder in "abc"
    ]
    answers += [
        Answer(Photo("u.jpg"), label="unsure", content=b"u"),
        Answer(Photo("t.txt"), reason="empty", content=b""),
        Answer(Photo("gone.jpg"), reason="missing"),
        Answer(Photo("h.jpg"), label="../up", content=b"h"),
    ]
    for again in (answers, answers, answers[::-1]):  # the second time, everything is there, in whatever order
        copies = Copies()
        for answer in again:
            copies.sort(answer, out)
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == {
        "cat/x.jpg": b"one",
        "cat/x-2.jpg": b"two",
        "unsure/u.jpg": b"u",
        "unreadable/t.txt": b"",
        ".._up/h.jpg": b"h",
    }
    assert (out / "cat/x-2.jpg").stat().st_mtime == 1e9, "a copy has the time of its photo"
    assert (tmp_path / "a/x.jpg").read_bytes() == b"one", "photos stay where they are"


def test_a_link_that_lies_there_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "x.jpg").symlink_to("precious")
    (tmp_path / "y.jpg").symlink_to("nowhere")
    assert Copies().write(tmp_path / "x.jpg", b"photo").name == "x-2.jpg"
    assert Copies().write(tmp_path / "y.jpg", b"photo").name == "y-2.jpg"
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_thousands_of_one_name_take_no_longer_than_others(tmp_path: Path) -> None:
    contents = [b"%d" % number for number in range(2000)]
    began = time.monotonic()
    for _ in range(2):
        copies = Copies()
        paths = [copies.write(tmp_path / "img.jpg", content) for content in contents]
    assert time.monotonic() - began < 5, "half a minute if each begins to count at 1"
    assert [path.read_bytes() for path in paths] == contents
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_copy_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            Copies().write(tmp_path / "x.jpg", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_file_system_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as FAT does it

    monkeypatch.setattr(os, "link", refuse)
    assert [Copies().write(tmp_path / "x.jpg", content).name for content in (b"a", b"b", b"a")] == [
        "x.jpg",
        "x-2.jpg",
        "x.jpg",
    ]
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == [("x-2.jpg", b"b"), ("x.jpg", b"a")]
