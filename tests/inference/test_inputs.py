import io
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from inference import web
from inference.inputs import Photo, Walk
from tasks.images import UndecodableError
from tests.inference.running import picture


@pytest.fixture
def folder(workdir: Path) -> Path:
    """The current folder, with `photos/` in it."""
    for name in (
        "b.jpg",
        "a.PNG",
        "no-ending",
        "read.me.txt",
        ".hidden.jpg",
        "deep/x.webp",
        "v1.2/y.jpg",
        ".git/z.jpg",
    ):
        path = workdir / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture("red"))
    return workdir


def names(*named: str, stdin: bytes = b"", leave_out: tuple[Path, ...] = ()) -> list[str]:
    return [photo.name for photo in Walk(named, io.BytesIO(stdin), leave_out)]


def reason(photo: Photo) -> tuple[str, str]:
    with pytest.raises(UndecodableError) as refused:
        photo.read()
    return refused.value.reason, refused.value.evidence


def test_a_folder_is_searched_as_ingest_does_it(folder: Path) -> None:
    expected = ["photos/a.PNG", "photos/b.jpg", "photos/no-ending", "photos/deep/x.webp", "photos/v1.2/y.jpg"]
    assert names("photos") == expected
    assert Walk(["photos", "photos/read.me.txt"], io.BytesIO()).count() == 6, "what is named itself is taken"


def test_the_order_is_that_of_the_input(folder: Path) -> None:
    assert names("photos/b.jpg", "https://example.com/x", "photos/deep", "photos/b.jpg") == [
        "photos/b.jpg",
        "https://example.com/x",
        "photos/deep/x.webp",
        "photos/b.jpg",
    ]


def test_globs_that_no_shell_expanded(folder: Path) -> None:
    assert names("photos/*.jpg") == ["photos/b.jpg"]
    assert names("photos/**/*.jpg") == ["photos/b.jpg", "photos/v1.2/y.jpg"]
    assert names("photos/d*") == ["photos/deep/x.webp"]
    Path("photos/[1].jpg").write_bytes(picture("red"))
    assert names("photos/[1].jpg") == ["photos/[1].jpg"], "a file of that name comes first"


def test_folders_that_the_command_writes_are_left_out(folder: Path) -> None:
    left_out = (Path("photos/deep"),)
    Path("photos/loop").symlink_to("loop")
    assert "photos/deep/x.webp" not in names("photos", leave_out=left_out)
    assert names("photos/[dlv]*", leave_out=left_out) == ["photos/loop", "photos/v1.2/y.jpg"]
    assert names("photos/**/*.webp", "photos/*/x*", leave_out=left_out) == ["photos/**/*.webp", "photos/*/x*"]


def test_a_photo_of_any_name_is_read_byte_for_byte(folder: Path) -> None:
    for raw in (b"new\nline.jpg", b"[red]\x1b[31m.jpg", b"caf\xe9.jpg"):
        path = Path("odd", os.fsdecode(raw))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    assert [photo.read() for photo in Walk(["odd"], io.BytesIO())] == [
        b"[red]\x1b[31m.jpg",
        b"caf\xe9.jpg",
        b"new\nline.jpg",
    ]


def test_standard_input_is_an_image_or_a_list(folder: Path) -> None:
    [photo] = Walk(["-"], io.BytesIO(picture("blue")))
    assert (photo.name, photo.read()) == ("-", picture("blue"))
    assert names("-", stdin=b"photos/b.jpg\r\nphotos/deep\n\nhttps://example.com/x") == [
        "photos/b.jpg",
        "photos/deep/x.webp",
        "https://example.com/x",
    ]
    assert names("-", stdin=b"photos/a.PNG\0odd\nname.jpg\0") == ["photos/a.PNG", "odd\nname.jpg"]
    long_list = b"".join(b"photo-%d.jpg\n" % number for number in range(2000))
    assert names("-", stdin=long_list)[1999] == "photo-1999.jpg"
    [garbage] = Walk(["-"], io.BytesIO(b"%PDF-1.4\n\x01\x02"))
    assert garbage.read() == b"%PDF-1.4\n\x01\x02"
    assert Walk(["-"], io.BytesIO()).count() is None


def test_what_is_named_on_a_pipe_comes_at_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as stdin:  # noqa: PTH123 - no path
        photos = iter(Walk(["-"], stdin))
        for part, name in ((b"a.jpg\nb", "a.jpg"), (b".jpg\n", "b.jpg"), (b"c.jpg\n", "c.jpg")):
            os.write(writing, part)
            assert next(photos).name == name
        os.write(writing, b"no line end")
        os.close(writing)
        assert [photo.name for photo in photos] == ["no line end"]


def test_an_image_on_a_pipe_comes_in_pieces() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as stdin, open(writing, "wb") as pipe:  # noqa: PTH123 - no path
        content = picture("red", "BMP", size=(300, 300))

        def write() -> None:
            with pipe:
                pipe.write(content)

        thread = threading.Thread(target=write)
        thread.start()
        [photo] = Walk(["-"], stdin)
        thread.join()
    assert photo.read() == content


def test_an_image_on_a_pipe_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BYTES", 1000)
    content = picture("red", "BMP", size=(30, 30))
    [photo] = Walk(["-"], io.BytesIO(content))
    with pytest.raises(UndecodableError) as error:
        photo.read()
    assert error.value.reason == "too_large"


def test_a_line_has_an_end(folder: Path) -> None:
    tracemalloc.start()
    stdin = io.BytesIO(b"photos/b.jpg\n" + b"x" * 20_000_000 + b"\nphotos/deep\n" + b"y" * 70_000)
    tracemalloc.reset_peak()
    photos = list(Walk(["-"], stdin))
    grown = tracemalloc.get_traced_memory()[1] - len(stdin.getbuffer())
    tracemalloc.stop()
    assert grown < 2_000_000
    assert [photo.name for photo in photos] == [
        "photos/b.jpg",
        "x" * 40 + "...",
        "photos/deep/x.webp",
        "y" * 40 + "...",
    ]
    assert reason(photos[1]) == reason(photos[3]) == ("unreadable", "a line too long for a path")


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo("photos/pipe.jpg")
    Path("photos/link.jpg").symlink_to("nowhere.jpg")
    [pipe] = [photo for photo in Walk(["photos"], io.BytesIO()) if photo.name == "photos/pipe.jpg"]
    assert reason(Photo("photos/link.jpg")) == ("missing", "a link to nothing")
    assert [reason(photo) for photo in (pipe, Photo("/dev/zero"))] == [("not_a_file", "not a regular file")] * 2


def test_links_in_a_folder_are_counted_and_those_that_are_named_followed(folder: Path) -> None:
    before = names("photos")
    Path("secret").write_bytes(b"secret")
    Path("deep").symlink_to("photos/deep")
    for link, target in (("photos/a.jpg", "../secret"), ("photos/deep/more", "../.."), ("photos/.hidden", "b.jpg")):
        Path(link).symlink_to(target)
    walk = Walk(["photos"], io.BytesIO())
    assert [walk.count(), walk.links] == [len(before), 2], "what would be passed over is none of the two"
    assert [[photo.name for photo in walk], walk.links] == [before, 2], "counted anew"
    for pattern in ("photos/**/*.*", str(folder / "photos/**/*.*")):
        walk = Walk([pattern], io.BytesIO())
        matched = [photo.name for photo in walk]
        assert walk.links >= 1
        assert not any(Path(name).is_symlink() or "more" in name for name in matched)
        assert len(matched) == len(before), "read.me.txt, too, but not the one without an ending"
    assert names("photos/a.*") == ["photos/a.PNG", "photos/a.jpg"], "as where the shell expands it"
    assert [photo.read() for photo in Walk(["photos/a.jpg", "deep"], io.BytesIO())] == [b"secret", picture("red")]


def test_a_pipe_of_the_shells_is_read() -> None:
    """`pawline predict <(curl ...)`."""
    reading, writing = os.pipe()
    os.write(writing, b"photo")
    os.close(writing)
    assert Photo(f"/dev/fd/{reading}").read() == b"photo"
    os.close(reading)


def test_addresses_are_told_from_paths(folder: Path) -> None:
    [ftp] = Walk(["ftp://example.com/*.jpg"], io.BytesIO())
    assert reason(ftp) == ("unsupported", "only http:// and https:// are fetched")
    [secret] = Walk(["https://me:hush@example.com/x"], io.BytesIO())
    assert "hush" not in repr(secret)
    assert secret.source == "https://me:hush@example.com/x"
    Path("odd:").mkdir()
    Path("odd:/x.jpg").write_bytes(picture("red"))
    assert [photo.read() for photo in Walk(["odd://x.jpg"], io.BytesIO())] == [picture("red")]


def test_what_is_not_there_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("empty").mkdir()
    wrong = list(Walk(["none.jpg", "empty", "none/*.jpg", "x" * 5000, "photos/b.jpg/x"], io.BytesIO()))
    assert [reason(photo) for photo in wrong] == [
        ("missing", "no such file or folder"),
        ("empty_folder", "holds no file named as an image"),
        ("no_match", "nothing matches this pattern"),
        ("unreadable", "File name too long"),
        ("unreadable", "Not a directory"),
    ]
    monkeypatch.setattr(web, "MAX_BYTES", 100)
    assert reason(Photo("photos/b.jpg"))[0] == "too_large"
