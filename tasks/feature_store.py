"""The feature store: pooled vectors and boundary tensors on disk, memory-mapped when read.

A split's shard is `<split>-<shard>-pooled.npy`, float32 [images, views, channels], `-boundary.npy`, float16 (uint8 when
the boundary is the image itself) [images, views, ...], `-labels.npy`, int64 [images], and `-ids.npy`, S64 [images], the
SHA-256 of the original bytes in hex. The rows are in the order of the TFRecords. `manifest.json` says how they were
made.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import stage

Array = npt.NDArray[Any]


class FeatureSplit:
    """One split's features. Arrays stay on disk until they are indexed."""

    def __init__(self, features_dir: Path, split: str, kind: str) -> None:
        """Open the arrays of a kind (`pooled` or `boundary`)."""
        self._arrays = [np.load(path, mmap_mode="r") for path in shard_files(features_dir, split, kind)]
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
        """Return one view of the images at these indices, [len(indices), ...], dtype as stored."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        return np.stack(
            [
                self._arrays[shard][index - self._starts[shard], view]
                for shard, index in zip(shards, indices, strict=True)
            ]
        )


def read_ids(features_dir: Path, split: str) -> list[str]:
    """Return the ids of a split's images, in the order of its rows."""
    return [image_id.decode() for path in shard_files(features_dir, split, "ids") for image_id in np.load(path)]


def shard_files(features_dir: Path, split: str, kind: str) -> list[Path]:
    """Return the files of a split and kind in order."""
    return sorted(features_dir.glob(f"{split}-*-{kind}.npy"))


def shard_name(split: str, shard: int, kind: str) -> str:
    """Return the file name of one array."""
    return f"{split}-{shard:05d}-{kind}.npy"


def read_manifest(features_dir: Path) -> dict[str, Any]:
    """Return how the features were made."""
    return stage.read_json(features_dir / "manifest.json")
