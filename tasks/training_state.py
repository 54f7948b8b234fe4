"""The whole state of a training after an epoch: kept, and taken up by a run that carries on.

The file begins with the SHA-256 of what follows, NumPy's arrays: a damaged state is not taken up.
"""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from tasks import optimization
from tasks.curves import History
from tasks.quiet_tf import Model
from tasks.stage import whole_file
from tasks.strategy import Replicas

log = logging.getLogger(__name__)

FILE_NAME = "state"
DIGEST_BYTES = hashlib.sha256().digest_size


def keep(model: Model, history: History, best: list[np.ndarray], scratch: Path) -> None:
    """Write the state of the last finished epoch."""
    with whole_file(scratch / FILE_NAME) as unfinished:
        content = _packed(_arrays(model, history, best))
        unfinished.write_bytes(hashlib.sha256(content).digest() + content)


def resume(
    model: Model, callbacks: optimization.Callbacks, scratch: Path | None, replicas: Replicas | None
) -> tuple[History, list[np.ndarray]]:
    """Take up the state of the last finished epoch, if there is one; return what happened and the best weights.

    Where several replicas train, all take up the chief's state, the one before the first epoch included.
    """
    content = b"" if scratch is None else _read(scratch / FILE_NAME)
    if replicas:
        content = replicas.from_chief(content or _packed(_arrays(model, History(), values_of(model.weights))))
    if not content:
        return History(), values_of(model.weights)
    with np.load(io.BytesIO(content)) as arrays:
        history = History(**json.loads(arrays["history"].tobytes()))
        for epoch, row in enumerate(history.epochs):
            callbacks.on_epoch_end(epoch, row)  # before the state: it has the learning rate that they lowered
        state = _state(model)
        assign(state, [arrays[f"state_{i}"] for i in range(len(state))])
        best = [arrays[f"best_{i}"] for i in range(len(model.weights))]
    if replicas:
        replicas.draw_apart(model)
    if history.epochs:
        log.info("carrying on after epoch %d", len(history.epochs))
    return history, best


def values_of(variables: list[Any]) -> list[np.ndarray]:
    """Return the values of some variables."""
    return [variable.numpy() for variable in variables]


def assign(variables: list[Any], values: list[np.ndarray]) -> None:
    """Set some variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _state(model: Model) -> list[Any]:
    """Return every variable that the next step depends on: weights, random seeds of dropout, optimizer slots."""
    return [*model.variables, *model.optimizer.variables]


def _arrays(model: Model, history: History, best: list[np.ndarray]) -> dict[str, Any]:
    arrays: dict[str, Any] = {f"state_{i}": value for i, value in enumerate(values_of(_state(model)))}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    arrays["history"] = np.frombuffer(json.dumps(vars(history)).encode(), np.uint8)
    return arrays


def _packed(arrays: dict[str, Any]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _read(path: Path) -> bytes:
    """Return the arrays that were kept; nothing if there are none, or they are not what was kept."""
    content = path.read_bytes() if path.exists() else b""
    digest, arrays = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(arrays).digest() == digest:
        return arrays
    if path.exists():
        log.warning("%s is damaged: the training begins anew", path)
    return b""
