import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import gallery
from tasks.image_table import ImageRow
from tasks.raw import RawRecord, write_shards


def noise(seed: int, side: int = 400) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def row(number: int, **facts: str) -> ImageRow:
    return ImageRow(id=f"id{number:03d}", path=f"{number:03d}.jpg", label="cat", **facts)  # type: ignore[arg-type]


def test_reasons_are_in_order_of_their_number_and_share_the_room() -> None:
    few = gallery.group_by_reason([row(1), row(2, reason="blank"), *(row(n, reason="empty") for n in range(9, 40))])
    assert [(group.reason, group.count, len(group.rows)) for group in few] == [("empty", 31, 24), ("blank", 1, 1)]
    many = gallery.group_by_reason(row(n, reason=f"reason {n % 12}") for n in range(600))
    assert {len(group.rows) for group in many} == {10}


def test_near_duplicates_are_groups_of_several_the_largest_first() -> None:
    rows = [
        row(1, group="a"),
        row(2, group="b"),
        row(3, group="b"),
        row(9),
        *(row(n, group="c") for n in range(20, 26)),
    ]
    groups = gallery.near_duplicates(rows)
    assert [(group.count, [one.path for one in group.rows]) for group in groups] == [
        (6, ["020.jpg", "021.jpg", "022.jpg", "023.jpg"]),
        (2, ["002.jpg", "003.jpg"]),
    ]


def test_a_thumbnail_is_small_whatever_it_shows() -> None:
    url = gallery.shrink(noise(0))
    assert url is not None
    content = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert len(content) <= gallery.THUMBNAIL_BYTES
    assert Image.open(io.BytesIO(content)).size == (160, 160)
    assert gallery.shrink(b"no image") is None


def test_only_what_was_decoded_before_is_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shards((RawRecord(f"{n:03d}.jpg", "cat", "", noise(n, 50)) for n in range(3)), tmp_path)
    thumbnails = gallery.make_thumbnails(tmp_path, [row(0, perceptual_hash="00"), row(1)])
    assert list(thumbnails) == ["000.jpg"]
    assert gallery.make_thumbnails(tmp_path / "nowhere", [row(1)]) == {}
