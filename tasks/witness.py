"""The freeze witness: digests that prove that what had to stay frozen did not move.

A library that unfreezes something silently then fails the run instead of costing accuracy unseen.
"""

import hashlib
from typing import Any

import numpy as np

from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError

Digests = dict[str, str]


def frozen_digests(network: Model) -> Digests:
    """Return the SHA-256 of every tensor that must not move, by path.

    These are the weights of layers that are not trainable, and the moving mean and variance of every
    BatchNormalization layer.
    """
    digests: Digests = {}
    for layer in network.layers:
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.weights if not layer.trainable or normalises else layer.non_trainable_weights:
            digests[variable.path] = tensor_digest(variable.numpy())
    return digests


def tensor_digest(tensor: np.ndarray) -> str:
    """Return the SHA-256 of a tensor's bytes, C order, in hex."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


def check_frozen(before: Digests, after: Digests, *, what: str) -> dict[str, Any]:
    """Compare digests; return the record of the comparison.

    Raises:
        PawlineError: If a frozen tensor moved, appeared or vanished.
    """
    moved = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if moved:
        raise PawlineError(
            f"{what}: {len(moved)} frozen tensors moved, such as {moved[0]}; the model is not written. "
            "Report this with the versions of Keras and TensorFlow: freezing does not hold"
        )
    return {"frozen_tensors": len(before), "moved": 0, "before": digest_of(before), "after": digest_of(after)}


def check_same_weights(digests: Digests, manifest: dict[str, Any]) -> None:
    """Compare a wholly frozen backbone with the one that the stored features come from.

    Raises:
        PawlineError: If it has other weights.
    """
    if digest_of(digests) != manifest["backbone_digest"]:
        raise PawlineError("data/features is of other weights than models/backbone: run `dvc repro features`")


def digest_of(digests: Digests) -> str:
    """Return one SHA-256 over all digests, in the order of their paths."""
    text = "".join(f"{path} {digests[path]}\n" for path in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()
