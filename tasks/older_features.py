"""Features that the run before computed, image by image: new neighbours in a shard make no difference to an image."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.feature_store import Array, kind_of, split_of
from tasks.reuse import Finished

NOT_COMPUTED = ("ids", "labels")


class Place(NamedTuple):
    """A row of a shard."""

    made_from: str  # which of the shards
    row: int


class OlderFeatures:
    """Finds the rows of images among finished shards, whose files it checks before it reads them."""

    def __init__(self, finished: Finished) -> None:
        """Nothing is read until an image is looked for."""
        self._finished = finished
        self._places: dict[str, dict[str, Place]] = {}
        self._arrays: dict[str, dict[str, Array]] = {}

    def find(self, split: str, ids: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Array]]]:
        """Yield positions in `ids` and what was computed of them by kind, [positions, views, ...], shard by shard."""
        if split not in self._places:
            self._places[split] = self._index(split)
        found = ((position, self._places[split].get(image_id)) for position, image_id in enumerate(ids))
        by_shard: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, place in found:
            if place is not None:
                by_shard[place.made_from].append((position, place.row))
        for made_from, pairs in by_shard.items():
            positions, rows = np.array(pairs, np.int64).T
            arrays = self._open(made_from)
            if arrays:
                yield positions, {kind: array[rows] for kind, array in arrays.items()}

    def _index(self, split: str) -> dict[str, Place]:
        paths = self._finished.paths
        return {
            image_id.decode(): Place(made_from, row)
            for made_from, files in self._finished.made.items()
            for name in files
            if split_of(name) == split and kind_of(name) == "ids" and self._finished.is_sound(made_from, name)
            for row, image_id in enumerate(np.load(paths[name]))
        }

    def _open(self, made_from: str) -> dict[str, Array]:
        if made_from not in self._arrays:
            self._arrays[made_from] = {
                kind_of(name): np.load(self._finished.paths[name], mmap_mode="r")
                for name in self._finished.files(made_from)
                if kind_of(name) not in NOT_COMPUTED
            }
        return self._arrays[made_from]
