"""Features that the run before computed, image by image: new neighbours in a shard make no difference to an image.

An image is known by its photo's id, which decides how it is augmented, and by the digest of what was made of the photo.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.feature_store import Array, kind_of, split_of
from tasks.reuse import Finished

NOT_COMPUTED = ("ids", "labels", "images")

Image = tuple[str, bytes]  # a photo's id, and the BLAKE3 of its PNG


class Place(NamedTuple):
    """A row of a shard."""

    made_from: str  # which of the shards
    row: int


class OlderFeatures:
    """Finds the rows of images among finished shards, whose files it checks before it reads them."""

    def __init__(self, finished: Finished) -> None:
        """Nothing is read until an image is looked for."""
        self._finished = finished
        self._places: dict[str, dict[Image, Place]] = {}
        self._arrays: dict[str, dict[str, Array]] = {}

    def find(self, split: str, images: Sequence[Image]) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Array]]]:
        """Yield positions in `images` and what was computed of them by kind, [positions, views, ...], by shard."""
        if split not in self._places:
            self._places[split] = self._index(split)
        found = ((position, self._places[split].get(image)) for position, image in enumerate(images))
        by_shard: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for position, place in found:
            if place is not None:
                by_shard[place.made_from].append((position, place.row))
        for made_from, pairs in by_shard.items():
            positions, rows = np.array(pairs, np.int64).T
            arrays = self._open(made_from)
            if arrays:
                yield positions, {kind: array[rows] for kind, array in arrays.items()}

    def _index(self, split: str) -> dict[Image, Place]:
        places = {}
        for made_from, files in self._finished.made.items():
            names = {kind_of(name): name for name in files if split_of(name) == split}
            known = [names[kind] for kind in ("ids", "images") if kind in names]
            if len(known) == 2 and all(self._finished.is_sound(made_from, name) for name in known):
                ids, digests = (np.load(self._finished.paths[name]) for name in known)
                for row, (image_id, digest) in enumerate(zip(ids, digests, strict=True)):
                    places[image_id.decode(), digest.tobytes()] = Place(made_from, row)
        return places

    def _open(self, made_from: str) -> dict[str, Array]:
        if made_from not in self._arrays:
            self._arrays[made_from] = {
                kind_of(name): np.load(self._finished.paths[name], mmap_mode="r")
                for name in self._finished.files(made_from)
                if kind_of(name) not in NOT_COMPUTED
            }
        return self._arrays[made_from]
