"""The feature store: pooled vectors and boundary tensors on disk, memory-mapped when read.

A split's shard is `<split>-<shard>-pooled.npy`, float32 [images, views, channels], `-boundary.npy` [images, views,
...], `-labels.npy`, int64 [images], `-ids.npy`, S64 [images], the SHA-256 of the original bytes in hex, and
`-images.npy`, uint8 [images, 32], the BLAKE3 of each image's PNG. The rows are in the order of the TFRecords.
`manifest.json` says how they were made.

Boundary tensors of evaluation images are float16. Those of training views, of which there are most, are uint8: the 256
levels between each channel's smallest and largest value in a view, which are in `-boundary_range.npy`, float32 [images,
views, 2, channels]. Where the boundary is the image itself, it is stored as it is, uint8.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import stage

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
HIGHEST_LEVEL = 255


def quantize(tensors: Floats) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Round tensors [images, ..., channels] to levels of the same shape; return them and each channel's range.

    The range is float32 [images, 2, channels], the smallest and the largest value; no value moves by more than half of
    a 255th of it. The smallest, such as the zeros after a ReLU, is kept as it is.
    """
    inner = tuple(range(1, tensors.ndim - 1))
    low, high = tensors.min(axis=inner, keepdims=True), tensors.max(axis=inner, keepdims=True)
    step = (high - low) / HIGHEST_LEVEL
    levels = np.rint((tensors - low) / np.where(step == 0, 1, step)).astype(np.uint8)
    channels = (len(tensors), tensors.shape[-1])
    return levels, np.stack([low.reshape(channels), high.reshape(channels)], axis=1)


def dequantize(levels: npt.NDArray[np.uint8], ranges: Floats) -> Floats:
    """Return the tensors that `quantize` rounded, float32."""
    shape = (len(levels), *(1,) * (levels.ndim - 2), levels.shape[-1])
    low, high = ranges[:, 0].reshape(shape), ranges[:, 1].reshape(shape)
    return np.asarray(levels * ((high - low) / HIGHEST_LEVEL) + low, np.float32)


class FeatureSplit:
    """One split's features. Arrays stay on disk until they are indexed."""

    def __init__(self, features_dir: Path, split: str, kind: str) -> None:
        """Open the arrays of a kind (`pooled` or `boundary`)."""
        self._arrays = [np.load(path, mmap_mode="r") for path in shard_files(features_dir, split, kind)]
        ranges = shard_files(features_dir, split, range_of(kind))
        self._ranges = [np.load(path, mmap_mode="r") for path in ranges]  # none where nothing was rounded
        labels = [np.load(path) for path in shard_files(features_dir, split, "labels")]
        self.labels: npt.NDArray[np.int64] = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        self._starts = np.cumsum([0, *(len(array) for array in self._arrays)])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> int:
        """Views of each image."""
        return int(self._arrays[0].shape[1])

    def rows(self, indices: npt.NDArray[np.int64], view: int) -> Array:
        """Return one view of the images at these indices, [len(indices), ...]: float32 if rounded, else as stored."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        places = list(zip(shards, indices - self._starts[shards], strict=True))
        stored = np.stack([self._arrays[shard][row, view] for shard, row in places])
        if not self._ranges:
            return stored
        return dequantize(stored, np.stack([self._ranges[shard][row, view] for shard, row in places]))


def read_ids(features_dir: Path, split: str) -> list[str]:
    """Return the ids of a split's images, in the order of its rows."""
    return [image_id.decode() for path in shard_files(features_dir, split, "ids") for image_id in np.load(path)]


def shard_files(features_dir: Path, split: str, kind: str) -> list[Path]:
    """Return the files of a split and kind in order."""
    return sorted(features_dir.glob(f"{split}-*-{kind}.npy"))


def range_of(kind: str) -> str:
    """Return the kind of array that has the ranges of a kind that was rounded."""
    return f"{kind}_range"


def shard_name(split: str, shard: int, kind: str) -> str:
    """Return the file name of one array."""
    return f"{split}-{shard:05d}-{kind}.npy"


def split_of(name: str) -> str:
    """Return the split of an array by its file name."""
    return name.split("-")[0]


def kind_of(name: str) -> str:
    """Return the kind of an array by its file name."""
    return name.rpartition("-")[2].removesuffix(".npy")


def read_manifest(features_dir: Path) -> dict[str, Any]:
    """Return how the features were made."""
    return stage.read_json(features_dir / "manifest.json")
