"""Accuracy on parts of the evaluated split: where a classifier is weaker than its one figure says."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST_IMAGES = 10  # of 9 images without a mistake, the interval still goes down to 0.70
SHORT_SIDES = ((100, "below 100 px"), (200, "100 to 199 px"), (400, "200 to 399 px"), (None, "400 px and more"))
SQUARE_WITHIN = 1.1  # long side over short side
SHAPES = ("portrait", "square", "landscape")
COLOURS = ("RGB", "greyscale", "other")
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # Pillow's; those of 16 bits begin with `I;16`
DARK_BELOW, BRIGHT_FROM = 80, 160  # mean grey level; of 1,272 cats and dogs, 10 % are below and 6 % above
BRIGHTNESSES = ("dark", "medium", "bright")
GROUPED = "some in the data"
IMAGE_COLUMNS = ("id", "status", "group", "width", "height", "format", "mode")
ANSWER_COLUMNS = ("id", "label", "predicted", "brightness")

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Slice:
    """Images of the evaluated split that have something in common.

    Attributes:
        by: What was looked at, such as `short side`.
        value: What these images have in common, such as `100 to 199 px`.
        images: How many they are.
        correct: How many of them were recognised.
    """

    by: str
    value: str
    images: int
    correct: int

    def __str__(self) -> str:
        return f"{self.by}: {self.value} ({self.correct:,} of {self.images:,} right)"

    @property
    def accuracy(self) -> float:
        """Share of the images that were recognised."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval (Wilson)."""
        from tasks.metrics import wilson_interval

        return wilson_interval(self.correct, self.images)

    @property
    def says_enough(self) -> bool:
        """Whether there are enough images to say anything."""
        return self.images >= FEWEST_IMAGES

    def is_clearly_below(self, accuracy: float) -> bool:
        """Say whether there are enough images and the whole interval lies below an accuracy."""
        return self.says_enough and self.interval[1] < accuracy


def slices(predictions: "pa.Table", images: "pa.Table") -> list[Slice]:
    """Cut the evaluated images by class and by what is known of their files.

    Args:
        predictions: data/predictions.parquet. Without the column `brightness` (older ones) there are no such slices.
        images: data/images.parquet. A predicted image that is not in it is counted under its class only.

    Returns:
        The slices that hold any image: by true class, by the short side, shape, format and colour mode of the file as
        stored (before its EXIF orientation), by the brightness of what the classifier saw, and those of which the data
        have near-duplicates; in that order.
    """
    known = _kept_images(predictions, images)
    columns = [name for name in ANSWER_COLUMNS if name in predictions.column_names]
    rows = [
        {**known.get(row["id"], {}), **row, "correct": row["label"] == row["predicted"]}
        for row in predictions.select(columns).to_pylist()
    ]
    return [part for by, value_of, order in _FACETS for part in _cut(rows, by, value_of, order)]


def never_seen(parts: list[Slice]) -> list[tuple[str, str]]:
    """Return what no evaluated image was, as (by, value): of those properties whose values are known beforehand."""
    seen = {(part.by, part.value) for part in parts}
    looked_at = {part.by for part in parts}
    return [(by, value) for by, _, order in _FACETS if by in looked_at for value in order if (by, value) not in seen]


def count_grouped(images: "pa.Table") -> int:
    """Return how many of the kept photos in data/images.parquet have near-duplicates."""
    import pyarrow.compute as pc

    members = Counter(images.filter(pc.equal(images["status"], "kept"))["group"].to_pylist())
    return sum(count for count in members.values() if count > 1)


def _kept_images(predictions: "pa.Table", images: "pa.Table") -> dict[str, Row]:
    """Return the predicted images' rows of the image table by id, `grouped` if one has near-duplicates."""
    import pyarrow.compute as pc

    kept = images.select(list(IMAGE_COLUMNS)).filter(pc.equal(images["status"], "kept"))
    members = Counter(kept["group"].to_pylist())
    predicted = kept.filter(pc.is_in(kept["id"], value_set=predictions["id"].combine_chunks()))
    return {row["id"]: {**row, "grouped": members[row["group"]] > 1} for row in predicted.to_pylist()}


def _cut(rows: list[Row], by: str, value_of: Callable[[Row], str | None], order: tuple[str, ...]) -> list[Slice]:
    """Return the slices by one property: its values in their order, those without one by name."""
    images: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    for row in rows:
        value = value_of(row)
        if value is not None:
            images[value] += 1
            correct[value] += row["correct"]
    values = sorted(images, key=lambda value: (order.index(value) if value in order else len(order), value))
    return [Slice(by, value, images[value], correct[value]) for value in values]


def _label(row: Row) -> str:
    return str(row["label"])


def _short_side(row: Row) -> str | None:
    if not row.get("width"):
        return None
    side = min(row["width"], row["height"])
    return next(name for end, name in SHORT_SIDES if end is None or side < end)


def _shape(row: Row) -> str | None:
    if not row.get("width"):
        return None
    width, height = row["width"], row["height"]
    if max(width, height) <= SQUARE_WITHIN * min(width, height):
        return "square"
    return "portrait" if height > width else "landscape"


def _format(row: Row) -> str | None:
    return row.get("format") or None


def _colours(row: Row) -> str | None:
    mode = row.get("mode")
    if not mode:
        return None
    if mode in GREY_MODES or mode.startswith("I;16"):
        return "greyscale"
    return "RGB" if mode == "RGB" else "other"


def _brightness(row: Row) -> str | None:
    grey = row.get("brightness")
    if grey is None:
        return None
    return "dark" if grey < DARK_BELOW else "bright" if grey >= BRIGHT_FROM else "medium"


def _near_duplicates(row: Row) -> str | None:
    return GROUPED if row.get("grouped") else None


_FACETS: tuple[tuple[str, Callable[[Row], str | None], tuple[str, ...]], ...] = (
    ("class", _label, ()),
    ("short side", _short_side, tuple(name for _, name in SHORT_SIDES)),
    ("shape", _shape, SHAPES),
    ("format", _format, ()),
    ("colours", _colours, COLOURS),
    ("brightness", _brightness, BRIGHTNESSES),
    ("near-duplicates", _near_duplicates, ()),
)
