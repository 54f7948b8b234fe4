"""Training by several replicas at a time: the GPUs of this machine, or the workers of a cluster.

Every replica computes the gradient of its share of each batch; TensorFlow sums them, and every replica takes the same
step. The loop is our own (`tasks/training.py`), because Keras's `fit` fails under `MultiWorkerMirroredStrategy`.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tasks import optimization, workers
from tasks.feature_store import FeatureSplit
from tasks.heads import Output
from tasks.params import ComputeParams, TrainingParams
from tasks.quiet_tf import Model, Tensor, tf
from tasks.stage import PawlineError, TemporaryError

log = logging.getLogger(__name__)

Strategy: TypeAlias = Any  # TensorFlow ships no types
BLOCK_BYTES = 4096  # what is sent is filled up to whole ones: TensorFlow traces each length anew
# What TensorFlow raises in those that are left when a worker goes.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


class Batch(NamedTuple):
    """What a step is taken on; who computes a part reads the images of that part.

    Attributes:
        split: Where the images are.
        indices: Of the images, int64 [batch].
        view: Which view of each.
        targets: What they are trained towards, float32 [batch, units].
        weights: What each counts in the loss, float32 [batch]; 0 for those that only fill the batch.
    """

    split: FeatureSplit
    indices: np.ndarray
    view: int
    targets: np.ndarray
    weights: np.ndarray

    def part(self, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, targets and weights of a part of the images."""
        return self.split.rows(self.indices[part], self.view), self.targets[part], self.weights[part]


def join(compute: ComputeParams, what: str, params: TrainingParams, *folders: Path) -> Strategy | None:
    """Find who trains; where it is several workers, wait for them and compare them.

    Args:
        compute: The parameters.
        what: The stage's name.
        params: Its parameters; all workers must have the same.
        folders: What it reads; all workers must have the same.

    Returns:
        TensorFlow's strategy; None where one process with at most one GPU trains, as Keras does it.

    Raises:
        PawlineError: There are not the replicas that are asked for, TF_CONFIG makes no sense, or a worker differs.
        TemporaryError: A worker is missing.
    """
    cluster = workers.read_cluster()
    gpus = len(tf.config.list_physical_devices("GPU"))  # physical: asking for logical ones would start TensorFlow
    if compute.strategy == "mirrored" and cluster:
        raise PawlineError(
            f"compute.strategy is mirrored and {workers.TF_CONFIG} lists {len(cluster.addresses)} workers: "
            f"choose multi_worker or auto, or unset {workers.TF_CONFIG}"
        )
    if compute.strategy == "multi_worker" and cluster is None:
        raise PawlineError(
            f"compute.strategy is multi_worker and {workers.TF_CONFIG} does not list several workers: set it on each "
            "(docs/operations.md), or choose auto"
        )
    if cluster is None and compute.strategy == "auto" and gpus < 2:
        return None
    if cluster:
        named = {f"{what}.{name}": value for name, value in params.model_dump(mode="json").items()}
        workers.meet(cluster, what, workers.describe(named, gpus, *folders))
    strategy = _connected() if cluster else _mirrored()
    log.info("%s: trained by %d replicas", what, strategy.num_replicas_in_sync)
    return strategy


@contextmanager
def scope(strategy: Strategy | None) -> Iterator[None]:
    """Have every model that is built in the block trained by all replicas.

    Raises:
        TemporaryError: A worker was lost.
    """
    if strategy is None:
        yield
        return
    try:
        with strategy.scope():
            yield
    except LOST as error:
        raise TemporaryError(
            f"{_who_was_lost(error)}: run again on all of them, and training carries on after the last finished epoch"
        ) from None


def _who_was_lost(error: Exception) -> str:
    """Read it out of what TensorFlow says; it does not always say."""
    tasks = sorted(set(re.findall(r"^/job:(\w+)/replica:0/task:(\d+)", str(error), re.MULTILINE)))
    names = " and ".join(f"{job} {number} of {workers.TF_CONFIG}" for job, number in tasks) or "a worker"
    return f"{names} was lost ({type(error).__name__})"


def _connected() -> Strategy:
    """Return the strategy of all workers, connected; end the process if one died since it said that it was there."""
    lost = f"a worker was lost before TensorFlow had connected all, for {workers.WAIT_SECONDS:.0f} s"
    with workers.ended_after(workers.WAIT_SECONDS, f"{lost}: run again on all of them"):
        return tf.distribute.MultiWorkerMirroredStrategy()


def _mirrored() -> Strategy:
    """Return the strategy of this machine's GPUs (or of several logical processors, which only tests set up)."""
    devices = [device.name for kind in ("GPU", "CPU") for device in tf.config.list_logical_devices(kind)]
    gpus = [name for name in devices if "GPU" in name]
    if len(gpus or devices) < 2:
        raise PawlineError(
            f"compute.strategy is mirrored: TensorFlow sees {len(gpus)} GPUs here, and it takes two; choose auto"
        )
    return tf.distribute.MirroredStrategy(gpus or devices)


class Replicas:
    """The replicas of a strategy at work on a model that was built in its scope."""

    def __init__(self, strategy: Strategy) -> None:
        """Take TensorFlow's strategy."""
        self._strategy = strategy
        self.count: int = strategy.num_replicas_in_sync
        self._add = tf.function(self._add_up)

    def trainer(self, model: Model, output: Output) -> Callable[[Batch], dict[str, float]]:
        """Return a function that takes a step on a batch, a multiple of `count`, and returns its loss and accuracy."""

        def replica_step(features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
            with tf.GradientTape() as tape:
                answers = model(features, training=True)
                # The mean over this share, divided by the number of replicas (Keras does it): they add up to the
                # mean over the batch, and so do the gradients, which the optimizer sums.
                loss = model.compute_loss(y=targets, y_pred=answers, sample_weight=weights)
            variables = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            counts = tf.cast(weights > 0, tf.float32)
            right = optimization.right_answers(targets, answers, output) * counts
            return _sum_over_replicas(tf.stack([loss, tf.reduce_sum(right), tf.reduce_sum(counts)]))

        step = tf.function(lambda *shares: self._strategy.run(replica_step, args=shares))

        def train_on_batch(batch: Batch) -> dict[str, float]:
            loss, right, counted = self._first(step(*self._shares(batch.part, len(batch.indices))))
            return {"loss": loss, "accuracy": right / counted}

        return train_on_batch

    def predictor(self, model: Model) -> Callable[[FeatureSplit, np.ndarray], np.ndarray]:
        """Return a function that returns a model's answers to the images at some indices, a multiple of `count`."""

        def replica_step(features: Tensor) -> Tensor:
            answers = model(features, training=False)
            return tf.distribute.get_replica_context().all_gather(answers, axis=0)

        step = tf.function(lambda *shares: self._strategy.run(replica_step, args=shares))
        return lambda split, indices: self._first(
            step(*self._shares(lambda part: (split.rows(indices[part], 0),), len(indices)))
        )

    def from_chief(self, content: bytes) -> bytes:
        """Return the chief's bytes, whatever this worker has: what is decided by them is then the same everywhere."""
        length = int(self._of_first(np.array([len(content)], np.int64))[0])
        filled = math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES
        words = np.frombuffer(content[:filled].ljust(filled, b"\0"), np.int32)
        return self._of_first(words).tobytes()[:length]

    def draw_apart(self, model: Model) -> None:
        """Give dropout a seed of its own on each replica, where all have the first one's."""
        seeds = [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]

        def replica_step() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in seeds:
                seed.assign(seed.value + tf.cast(tf.stack([number, 0]), seed.dtype))

        tf.function(lambda: self._strategy.run(replica_step))()

    def _shares(self, load: Callable[[slice], tuple[np.ndarray, ...]], images: int) -> tuple[Any, ...]:
        """Return every array that `load` reads, of each replica of this process its own part."""
        size = images // self.count

        def value(context: Any) -> tuple[Tensor, ...]:  # noqa: ANN401 - TensorFlow ships no types
            start = context.replica_id_in_sync_group * size
            return tuple(tf.constant(array) for array in load(slice(start, start + size)))

        shares: tuple[Any, ...] = self._strategy.experimental_distribute_values_from_function(value)
        return shares

    def _of_first(self, values: np.ndarray) -> np.ndarray:
        """Return the whole numbers of the first replica: the others add zeros to them."""

        def value(context: Any) -> Tensor:  # noqa: ANN401 - TensorFlow ships no types
            return tf.constant(values if context.replica_id_in_sync_group == 0 else np.zeros_like(values))

        return self._first(self._add(self._strategy.experimental_distribute_values_from_function(value)))

    def _add_up(self, values: Any) -> Any:  # noqa: ANN401 - TensorFlow ships no types
        return self._strategy.run(_sum_over_replicas, args=(values,))

    def _first(self, results: Any) -> np.ndarray:  # noqa: ANN401 - TensorFlow ships no types
        """Return what every replica has got, from the first of this process."""
        return np.asarray(self._strategy.experimental_local_results(results)[0])


def _sum_over_replicas(values: Tensor) -> Tensor:
    here = tf.identity(values)  # an argument has no device yet, and TensorFlow asks for one
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)


def replicas_of(model: Model) -> Replicas | None:
    """Return the replicas in whose scope a model was built; None if it is trained by one process alone."""
    strategy = model.distribute_strategy
    return Replicas(strategy) if strategy.num_replicas_in_sync > 1 else None


def trained_by(model: Model) -> dict[str, int]:
    """Return what a summary says of who trained a model: nothing of one process alone."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    return {"replicas": replicas} if replicas > 1 else {}
