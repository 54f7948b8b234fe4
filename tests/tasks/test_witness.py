"""The freeze witness sees what moves."""

import numpy as np
import pytest

from tasks import witness
from tasks.quiet_tf import Model, keras
from tasks.stage import PawlineError


@pytest.fixture
def network() -> Model:
    """Frozen, normalisation, trained: `first`, `normal`, `last`."""
    image = keras.Input((4,))
    x = keras.layers.Dense(3, name="first", trainable=False)(image)
    x = keras.layers.BatchNormalization(name="normal", trainable=False)(x)
    built = keras.Model(image, keras.layers.Dense(2, name="last")(x))
    built.compile("sgd", "mse")
    return built


def fit(network: Model) -> None:
    rng = np.random.default_rng(0)
    network.train_on_batch(rng.normal(3, 2, (8, 4)).astype(np.float32), np.ones((8, 2), np.float32))


def test_what_trains_is_not_watched_and_what_is_frozen_is(network: Model) -> None:
    before = witness.frozen_digests(network)
    normal = {"gamma", "beta", "moving_mean", "moving_variance"}
    assert set(before) == {"first/kernel", "first/bias"} | {f"normal/{name}" for name in normal}
    fit(network)
    record = witness.check_frozen(before, witness.frozen_digests(network), what="x")
    assert (record["frozen_tensors"], record["moved"]) == (6, 0)
    assert record["before"] == record["after"] == witness.digest_of(before)


def test_a_batch_normalization_layer_that_trains(network: Model) -> None:
    network.get_layer("normal").trainable = True
    network.compile("sgd", "mse")
    before = witness.frozen_digests(network)
    fit(network)
    with pytest.raises(PawlineError, match=r"^fine_tune: 4 frozen tensors moved, such as normal/beta; the model"):
        witness.check_frozen(before, witness.frozen_digests(network), what="fine_tune")


def test_one_bit_of_a_frozen_kernel(network: Model) -> None:
    before = witness.frozen_digests(network)
    kernel = network.get_layer("first").kernel
    values = kernel.numpy()
    values[0, 0] = np.nextafter(values[0, 0], 9, dtype=np.float32)
    kernel.assign(values)
    with pytest.raises(PawlineError, match=r"^x: 1 frozen tensors moved, such as first/kernel; "):
        witness.check_frozen(before, witness.frozen_digests(network), what="x")


def test_a_tensor_that_vanished_or_appeared() -> None:
    for before, after in (({"a": "1", "b": "2"}, {"a": "1"}), ({"a": "1"}, {"a": "1", "b": "2"})):
        with pytest.raises(PawlineError, match="1 frozen tensors moved, such as b;"):
            witness.check_frozen(before, after, what="x")


def test_digests_are_of_values_in_c_order() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert witness.tensor_digest(np.asfortranarray(tensor)) == witness.tensor_digest(tensor)
    assert witness.tensor_digest(tensor.T) != witness.tensor_digest(tensor)
    assert witness.digest_of({"a": "1", "b": "2"}) == witness.digest_of({"b": "2", "a": "1"})
    assert witness.digest_of({"a": "2", "b": "1"}) != witness.digest_of({"a": "1", "b": "2"})
