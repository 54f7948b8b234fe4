"""What new photos cost: the share of the first run's time. That the bytes are the same is tested with the stages."""

import pytest

from benchmarks import new_photos, performance_page
from benchmarks.new_photos import NewPhotos

FOUND: NewPhotos = {
    "machine": "a machine",
    "images": 20_000,
    "more": 200,
    "where": "after",
    "first": {"source": 1.0, "ingest": 2.0, "validate": 20.0, "preprocess": 30.0, "backbone": 1.0, "features": 50.0},
    "second": {"source": 1.0, "ingest": 2.0, "validate": 2.0, "preprocess": 3.0, "backbone": 1.0, "features": 4.0},
}


def test_the_share_is_that_of_the_judged_stages() -> None:
    assert new_photos.share(FOUND) == pytest.approx(0.09)
    assert new_photos.describe(FOUND)[-1].endswith(": 9.0% of the first run's time, above 8%")
    page = performance_page.render({new_photos.KEYS["after"]: FOUND}, "")
    assert "| stage | 20,000 photos | 200 more, after them |" in page
    assert "| features | 50.0 s | 4.0 s |" in page
    assert "9.0% of the first run's time (bar: at most 8%, **missed**)" in page
