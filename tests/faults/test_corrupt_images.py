"""Damaged images: each is kept and can be trained on, or is quarantined with a reason, and none takes the run down."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tasks.image_table import ImageRow, read_images
from tasks.images import FORMATS
from tasks.raw import RawRecord, write_shards
from tasks.validate import BYTES
from tests.conftest import ROOT
from tests.faults import fuzz
from tests.faults.conftest import Report, Tries
from tests.faults.fuzz_seeds import encoded, many_scans, picture
from tests.faults.results import Fault
from tests.tasks.test_validate import source

PHOTOS = Path("petimages.zip")
SIDE_PX = 8000  # squared, it is as many pixels as params.yaml allows
# What a decoder's bug would do to the process, for files with such a comment. Python runs it in every process.
BUGS = """
import os, signal
from PIL import JpegImagePlugin

load = JpegImagePlugin.JpegImageFile.load

def crash(self):
    comment = self.info.get("comment", b"")
    if comment.startswith(b"SIG"):
        os.kill(os.getpid(), signal.Signals[comment.decode()])
    if comment == b"leak":
        bytearray(5 * 2**30)
    while comment == b"loop":
        pass
    return load(self)

JpegImagePlugin.JpegImageFile.load = crash
"""


def real_photos() -> Path | None:
    folder = Path(os.environ.get("PAWLINE_SHARED_DATA", ROOT / ".." / "shared" / "data"))
    return folder / PHOTOS if (folder / PHOTOS).exists() else None


def test_mutated_files(tries: Tries, report: Report, tmp_path: Path) -> None:
    files = tries(1_000, 100_000)
    found = fuzz.run(fuzz.find_seeds(real_photos()), files=files, seed=9, folder=tmp_path)
    assert found.reasons.total() == files
    assert found.failed == {}
    assert found.read == found.reasons[""] > files // 10
    assert {name for name, count in found.formats.items() if count} >= set(FORMATS)
    assert set(found.reasons) >= {"", "undecodable", "truncated", "not_an_image", "animated"}
    took = f"at most {found.slowest.seconds:.1f} s and {found.largest.memory >> 20} MiB each"
    contained = f"{len(found.heavy)} left to the limits of `validate`" if found.heavy else "no decoder crashed"
    report(
        Fault.CORRUPT_IMAGES,
        "mutated files of every format, judged twice; if kept, prepared and read by TensorFlow",
        tries=files,
        held=files - len(found.failed),
        seen=f"{found.read:,} kept and read; {took}; {contained}",
    )


def smooth(mode: str) -> Image.Image:
    """As many pixels as are allowed."""
    return picture("RGB", (500, 500)).resize((SIDE_PX, SIDE_PX)).convert(mode)


def veiled() -> Image.Image:
    """A picture that can be seen through, more and more."""
    image = smooth("RGBA")
    image.putalpha(image.getchannel("R"))
    return image


# Two canvases of libwebp's lie beside the one of Pillow: somewhat more than 1 GB.
TRANSPARENT_WEBP = "WebP, lossless, transparent"
BOMBS: dict[str, Callable[[], bytes]] = {
    "JPEG of a thousand scans": lambda: many_scans(Image.new("L", (SIDE_PX, SIDE_PX)), 1_000),
    "JPEG of twenty scans": lambda: many_scans(smooth("L"), 20),
    "PNG, transparent": lambda: encoded(smooth("RGBA"), "PNG", compress_level=1),
    "PNG of one colour": lambda: encoded(Image.new("RGBA", (SIDE_PX, SIDE_PX)), "PNG"),
    "JPEG, progressive, CMYK": lambda: encoded(smooth("CMYK"), "JPEG", progressive=True),
    "WebP, lossless": lambda: encoded(smooth("RGB"), "WEBP", lossless=True, quality=0, method=0),
    TRANSPARENT_WEBP: lambda: encoded(veiled(), "WEBP", lossless=True, quality=0, method=0),
    "TIFF of runs": lambda: encoded(Image.new("RGBA", (SIDE_PX, SIDE_PX)), "TIFF", compression="packbits"),
    "GIF": lambda: encoded(Image.new("P", (SIDE_PX, SIDE_PX)), "GIF"),
    "BMP of one bit": lambda: encoded(Image.new("1", (SIDE_PX, SIDE_PX)), "BMP"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_as_many_pixels_as_are_allowed(name: str, whole_suite_only: None, report: Report, tmp_path: Path) -> None:
    """What is small on disk and large in memory, or slow: within the limits, or quarantined for it."""
    content = BOMBS[name]()
    [verdict] = fuzz.contain({0: content}, tmp_path).values()
    seen = f"{len(content):,} bytes: {verdict.reason or 'kept'}"
    held = verdict.reason in ("too_slow", "out_of_memory")
    if not held:
        answer = fuzz.judge_one(content, 0)
        seen += f"; {answer.seconds:.1f} s, {answer.memory >> 20} MiB"
        most = BYTES if name == TRANSPARENT_WEBP else fuzz.LARGE_BYTES
        within = answer.seconds < fuzz.SLOW_SECONDS and answer.memory <= most
        held = answer.reason == verdict.reason and not answer.wrong and within
    report(Fault.CORRUPT_IMAGES, f"64 million pixels: {name}", tries=1, held=int(held), seen=seen)


def run_stage(
    records: list[RawRecord], folder: Path, *, stage: str = "validate", bugs: str = BUGS
) -> subprocess.CompletedProcess[str]:
    """Run a stage as DVC does, with decoders that have bugs."""
    for name in ("data/raw", "bugs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "bugs/sitecustomize.py").write_text(bugs)
    write_shards(records, folder / "data/raw")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    environment = os.environ | {"PYTHONPATH": f"{folder / 'bugs'}:{ROOT}"}
    command = [sys.executable, "-m", f"tasks.{stage}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def validated(records: list[RawRecord], folder: Path) -> dict[str, ImageRow]:
    done = run_stage(records, folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return {row.path: row for row in read_images(folder / "data/images.parquet")}


VERDICTS = {
    "SIGSEGV": ("crashes_decoder", "Pillow: the process that decodes it ends with SIGSEGV"),
    "leak": ("out_of_memory", "Pillow: decoding takes more than 1,536 MB of memory"),
    "SIGABRT": ("crashes_decoder", "Pillow: the process that decodes it ends with SIGABRT"),
    "loop": ("too_slow", "Pillow: decoding takes more than 5 s of a processor"),
    "SIGBUS": ("crashes_decoder", "Pillow: the process that decodes it ends with SIGBUS"),
}


def killers(count: int) -> list[RawRecord]:
    """Files that end the process that decodes them, or outgrow it."""
    names = enumerate(list(VERDICTS)[:count], start=1)
    return [
        RawRecord(f"{name}.jpg", "cat", "", encoded(picture(turn=40 * turn), "JPEG", comment=name.encode()))
        for turn, name in names
    ]


def test_a_file_that_ends_its_process_is_quarantined_and_the_others_are_not(
    tmp_path: Path, tries: Tries, report: Report
) -> None:
    photos, bad = source(60), killers(tries(1, len(VERDICTS)))
    rows = validated([*photos[:20], *bad, *photos[20:]], tmp_path / "run")
    quarantined = {row.path: (row.reason, row.evidence) for row in rows.values() if row.reason}
    assert quarantined == {one.path: VERDICTS[one.path.removesuffix(".jpg")] for one in bad}
    assert len(rows) == 60 + len(bad)
    what = "files that crash their decoder or outgrow its process, among photos"
    report(Fault.CORRUPT_IMAGES, what, tries=len(bad), held=len(quarantined), seen="quarantined; the photos are kept")


def test_the_verdict_is_the_same_whatever_is_beside_it(tmp_path: Path, whole_suite_only: None, report: Report) -> None:
    """In other row groups, in another order, beside other files that end their process: the same rows."""
    photos, bad = source(300), killers(4)
    orders = [[*photos, *bad], [*reversed(bad), *reversed(photos)], [*photos[:150], *bad, *photos[150:]]]
    found = [validated(order, tmp_path / str(number)) for number, order in enumerate(orders)]
    without = validated(photos, tmp_path / "without")
    assert all(one == found[0] for one in found)
    assert {path: row for path, row in found[0].items() if not row.reason} == without
    seen = "row groups, order and neighbours make no difference"
    report(Fault.CORRUPT_IMAGES, "the verdicts on such files, in any order", tries=4, held=4, seen=seen)


def test_whoever_kills_a_worker_is_not_taken_for_a_bad_file(tmp_path: Path, whole_suite_only: None) -> None:
    """SIGKILL says nothing of a file: the system sends it when memory is out."""
    killer = encoded(picture(), "JPEG", comment=signal.SIGKILL.name.encode())
    done = run_stage([*source(), RawRecord("cat/killed.jpg", "cat", "", killer)], tmp_path)
    assert done.returncode == 1
    assert "ended with SIGKILL, which is none of its doing: if memory ran out, free some; then run" in done.stderr
    assert not (tmp_path / "data/images.parquet").exists()


def test_a_photo_that_crashes_preprocess_alone_is_named_with_the_cure(
    tmp_path: Path, whole_suite_only: None, report: Report
) -> None:
    """As if in colour a decoder crashed that does not in gray."""
    photos, killer = source(), killers(1)[0]
    assert run_stage([*photos, killer], tmp_path, bugs="").returncode == 0
    done = run_stage([*photos, killer], tmp_path, stage="preprocess")
    cure = f"add {hashlib.sha256(killer.content).hexdigest()} to validate.reject in params.yaml"
    said = f"error: 'SIGSEGV.jpg' ends the process that decodes it (SIGSEGV): {cure}"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, said)
    what = "a photo that crashes `preprocess` and not `validate`"
    report(Fault.CORRUPT_IMAGES, what, tries=1, held=1, seen="one line with its name and the cure")
