"""Archives, folders and photos that somebody made to do harm: nothing outside is touched, and nothing runs."""

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from flows import artifacts
from tasks.gallery import shrink
from tasks.images import judge
from tasks.preprocess import encode_png
from tasks.sources import directory
from tasks.stage import PawlineError
from tasks.words import visible
from tests.conftest import ROOT
from tests.faults import hostile_archives
from tests.faults.conftest import FULL, Report
from tests.faults.fuzz import IMAGE, JUDGING
from tests.faults.fuzz_seeds import encoded, exif, picture
from tests.faults.results import Fault

# What a run of Python reads wherever it is.
OF_THE_SYSTEM = ("/proc/", "/dev/", "/sys/", "/usr/", "/lib", "/etc/localtime", "/etc/mime.types")


def take_all(archives: list[Path], folder: Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Run `source` and `ingest` on archives, as tests/faults/audited.py does."""
    work = folder / "work"
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(work / ".cache"), "HOME": str(work)}
    command = [sys.executable, "-m", "tests.faults.audited"]
    typed = json.dumps([str(path) for path in archives])
    subprocess.run(command, cwd=work, env=environment, input=typed, text=True, check=True, capture_output=True)
    said = {Path(path).name: what for path, what in json.loads((work / "said.json").read_text()).items()}
    return said, json.loads((work / "touched.json").read_text())


def strangers(touched: dict[str, list[str]], archives: Path, work: Path) -> list[str]:
    """What was touched that is neither the work's, nor the program's own to read."""
    ours = (str(ROOT), sys.prefix, sys.base_prefix, str(archives), str(work), *OF_THE_SYSTEM)
    read = [path for path in touched["read"] if not path.startswith(ours)]
    changed = [path for path in touched["changed"] if not path.startswith(str(work)) and "__pycache__" not in path]
    return read + changed + touched["run"]


def test_archives_of_our_own(tmp_path: Path, report: Report) -> None:
    photo = encoded(picture(), "JPEG")
    (tmp_path / "archives").mkdir()
    chosen = hostile_archives.attacks(photo) + (hostile_archives.slow_attacks(photo) if FULL else [])
    attacks = hostile_archives.write_all(chosen, tmp_path / "archives")
    said, touched = take_all(sorted((tmp_path / "archives").iterdir()), tmp_path)
    wrong = {}
    for name, attack in attacks.items():
        found = said[name]
        if attack.refusal:
            as_it_should = any(part in found.get("said", "") for part in attack.refusal.split("|"))
        else:
            as_it_should = {label for _, label in found.get("taken", [])} == {"cat", "dog"}
        if not as_it_should or not found.get("said", "").isprintable():
            wrong[attack.what] = found
    assert wrong == {}
    assert strangers(touched, tmp_path / "archives", tmp_path / "work") == []
    assert list(tmp_path.rglob("*CANARY*")) == []
    seen = f"{sum('said' in one for one in said.values())} refused in a line, the others read; nothing unpacked"
    report(Fault.HOSTILE, "zip and tar archives of our own", tries=len(attacks), held=len(attacks), seen=seen)


def test_archives_of_the_shared_data(shared_data: Path, tmp_path: Path, report: Report) -> None:
    archives = sorted((shared_data / "hostile").glob("*.zip"))
    said, touched = take_all(archives, tmp_path)
    assert len(archives) >= 8
    assert [name for name, found in said.items() if "said" not in found or not found["said"].isprintable()] == []
    assert strangers(touched, shared_data / "hostile", tmp_path / "work") == []
    report(Fault.HOSTILE, "the hostile archives of the shared data", tries=len(said), held=len(said), seen="refused")


def photos_in(folder: Path) -> Path:
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(encoded(picture(), "JPEG"))
    return folder


def test_links_and_special_files_of_a_folder_are_left_out(tmp_path: Path, report: Report) -> None:
    folder, outside = photos_in(tmp_path / "photos"), photos_in(tmp_path / "outside")
    links = {
        "cat/passwd.jpg": Path("/etc/passwd"),
        "cat/relative.jpg": Path("../../outside/cat/1.jpg"),
        "bird": outside / "cat",
        "cat/loop": folder,
        "cat/itself.jpg": folder / "cat/itself.jpg",
        "cat/nowhere.jpg": tmp_path / "nowhere",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "dog/pipe.jpg")
    os.mkfifo(folder / "dog/2.jpg")
    entries = {entry.path: entry for entry in directory.entries(folder)}
    assert {path for path, entry in entries.items() if not entry.left_out} == {"cat/1.jpg", "dog/1.jpg"}
    assert set(entries) == {"cat/1.jpg", "dog/1.jpg", "dog/pipe.jpg", "dog/2.jpg", *links}
    report(Fault.HOSTILE, "links and pipes in a folder of photos", tries=8, held=8, seen="left out and counted")


def test_what_takes_a_photos_place_after_it_was_listed_is_not_read(tmp_path: Path, report: Report) -> None:
    """A link to what the user may read and the one who gives the photos may not; a pipe; a disk full of zeros."""
    folder = photos_in(tmp_path)
    listed = [entry for entry in directory.entries(folder) if entry.path == "cat/1.jpg"]
    photo = folder / "cat/1.jpg"

    def link() -> None:
        photo.symlink_to("/etc/passwd")

    def pipe() -> None:
        os.mkfifo(photo)

    def huge() -> None:
        photo.touch()
        os.truncate(photo, 2**40)

    for replace, message in (
        (link, "symbolic links"),
        (pipe, "is no file any more"),
        (huge, "1,099,511,627,776 bytes"),
    ):
        photo.unlink()
        replace()
        with pytest.raises(PawlineError, match=message):
            listed[0].read()
    report(Fault.HOSTILE, "a photo replaced while the folder is read", tries=3, held=3, seen="refused in a line")


MARKUP = b"<script>document.title='ran'</script><svg onload=alert(1)>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script></svg>'


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(name, "x")
    return buffer.getvalue()


def polyglots() -> dict[str, bytes]:
    """Files that are photos, and something else to another program."""
    jpeg, gif = encoded(picture(), "JPEG", comment=MARKUP), encoded(picture(), "GIF")
    script = b"GIF89a=1" + gif[8:] + b"*/;alert(1)"  # its width is, to JavaScript, the beginning of an assignment
    return {
        "JPEG and HTML": jpeg,
        "JPEG and ZIP": jpeg + zip_of("../CANARY"),
        "JPEG with EXIF of markup": encoded(picture(), "JPEG", exif=exif()),
        "GIF and JavaScript": script,
        "PDF and JPEG": b"%PDF-1.7\n" + jpeg,
        "HTML and JPEG": MARKUP + jpeg,
        "PHP in a PNG": encoded(picture(), "PNG") + b"<?php system('touch CANARY'); ?>",
        "SVG": SVG,
        "SVG, compressed": b"\x1f\x8b\x08\0" + bytes(20),
        "MVG": b"push graphic-context\nimage over 0,0 0,0 'https://example.com/\"|touch CANARY\"'\npop graphic-context",
        "PostScript": b"%!PS\n(CANARY) (w) file closefile showpage",
        "EPS in a TIFF's coat": b"II*\0%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n",
        "XBM": b"#define x_width 64\n#define x_height 64\nstatic char x_bits[] = {0x00};",
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        "pickle": b"\x80\x04\x95" + bytes(100),
    }


PHOTOS = ("JPEG", "GIF", "PHP in a PNG")  # how the names begin of those that a photo can be seen in
PAYLOADS = (b"script", b"alert", b"CANARY", b"<?php", b"PK\3\4")


def test_polyglots_are_pictures_or_nothing(tmp_path: Path, report: Report) -> None:
    """What is kept goes on as pixels alone: nothing else of the file is in a TFRecord or on a page."""
    files = polyglots()
    verdicts = {name: judge(content, **JUDGING) for name, content in files.items()}
    kept = {name for name, verdict in verdicts.items() if not verdict.reason}
    assert kept == {name for name in files if name.startswith(PHOTOS) and name != "JPEG 2000"}
    assert {verdict.reason for name, verdict in verdicts.items() if name not in kept} <= {"not_an_image", "undecodable"}
    assert verdicts["SVG"].reason == "not_an_image"
    for name in kept:
        assert any(payload in files[name] for payload in PAYLOADS), name
        thumbnail = base64.b64decode((shrink(files[name]) or "").partition(",")[2])
        for content in (encode_png(files[name], IMAGE), thumbnail):
            assert len(content) > 100
            assert not [payload for payload in PAYLOADS if payload in content], name
    seen = f"{len(kept)} are photos, too, and go on as pixels; the others are quarantined"
    report(Fault.HOSTILE, "polyglots, markup in EXIF and comments, SVG", tries=len(files), held=len(files), seen=seen)


LABELS = (
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](http://example.com/x.png)",
    "a|b` **c** <b>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egpj\x1b[2J",
    "=1+1",
)


def test_labels_are_text_on_prefects_page(report: Report) -> None:
    """Prefect's page shows Markdown, which may hold HTML and links."""
    counts = {split: dict.fromkeys(LABELS, 7) for split in ("train", "val", "test")}
    reasons = {"blank": 1, LABELS[0]: 2}
    validation = {"images": 20, "kept": 17, "quarantined": 3, "by_reason": reasons, "splits": counts}
    markdown = artifacts.describe_validation(validation)
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(markdown)
    children = [child for token in tokens for child in token.children or []]
    assert not {"html_inline", "link_open", "image", "code_inline"} & {child.type for child in children}
    assert not [token for token in tokens if token.type == "html_block"]
    shown = "".join(child.content for child in children)
    assert all(str(visible(label)) in shown for label in LABELS)
    assert markdown.replace("\n", "").isprintable()
    report(Fault.HOSTILE, "class names in Prefect's artifacts", tries=len(LABELS), held=len(LABELS), seen="text")
