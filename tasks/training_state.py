"""The whole state of a training after an epoch: kept, and taken up by a run that carries on."""

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

FILE_NAME = "state.npz"


def keep(model: Model, history: History, best: list[np.ndarray], scratch: Path) -> None:
    """Write the state of the last finished epoch."""
    with whole_file(scratch / FILE_NAME) as unfinished:
        np.savez(unfinished, **_arrays(model, history, best))


def resume(
    model: Model, callbacks: optimization.Callbacks, scratch: Path | None, replicas: Replicas | None
) -> tuple[History, list[np.ndarray]]:
    """Take up the state of the last finished epoch, if there is one; return what happened and the best weights.

    Where several replicas train, all take up the chief's state, the one before the first epoch included.
    """
    kept = None if scratch is None else scratch / FILE_NAME
    content = kept.read_bytes() if kept and kept.exists() else b""
    if replicas:
        content = replicas.from_chief(content or _packed(model))
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


def _packed(model: Model) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **_arrays(model, History(), values_of(model.weights)))
    return packed.getvalue()
