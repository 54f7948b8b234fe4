"""The head: its layers, where they begin, and what its answers mean."""

from pathlib import Path

import numpy as np
import pytest

from tasks import heads, keras_files
from tasks.heads import Output
from tasks.params import TrainHeadParams
from tests.tasks.conftest import COMMITTED, changed

POOLED = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
PLAIN = changed(COMMITTED.train_head, hidden_units=(), dropout=0.5, seed=3)
DEEP = changed(PLAIN, hidden_units=(5, 5), activation="tanh")
OUTPUTS: list[tuple[Output, int, int]] = [("sigmoid", 2, 1), ("logit", 2, 1), ("softmax", 2, 2), ("softmax", 5, 5)]


@pytest.mark.parametrize("params", [PLAIN, DEEP])
@pytest.mark.parametrize(("output", "classes", "units"), OUTPUTS)
def test_answers_become_probabilities(params: TrainHeadParams, output: Output, classes: int, units: int) -> None:
    head = heads.build_head(6, classes, params, output=output)
    assert (head.input_shape, head.output_shape) == ((None, 6), (None, units))
    weights = [np.random.default_rng(1).normal(size=weight.shape) for weight in head.get_weights()]
    head.set_weights(weights)
    answers = np.asarray(head(POOLED))
    probs = heads.class_probs(answers, output)
    assert probs.shape == (4, classes)
    assert probs.dtype == np.float32
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    assert ((answers < 0).any() or (answers > 1).any()) == (output == "logit")
    if units == 1:
        assert np.array_equal(probs[:, 1].argsort(), answers[:, 0].argsort())  # the answer is the second class's


def test_layers() -> None:
    head = heads.build_head(6, 3, changed(DEEP, hidden_units=(5, 4)), output="softmax")
    names = ["pooled", "dropout_0", "hidden_0", "dropout_1", "hidden_1", "dropout_2", "probabilities"]
    assert [layer.name for layer in head.layers] == names
    hidden = [head.get_layer(f"hidden_{number}") for number in (0, 1)]
    assert [(layer.units, layer.activation.__name__) for layer in hidden] == [(5, "tanh"), (4, "tanh")]
    assert [head.get_layer(f"dropout_{number}").rate for number in range(3)] == [0.5] * 3
    assert [weight.shape for weight in head.get_weights()] == [(6, 5), (5,), (5, 4), (4,), (4, 3), (3,)]
    assert heads.build_head(6, 2, PLAIN, output="logit").layers[-1].name == "logit"


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_each_activation_can_be_had(activation: str) -> None:
    head = heads.build_head(6, 2, changed(DEEP, activation=activation), output="sigmoid")
    assert head.get_layer("hidden_0").activation.__name__ == activation


@pytest.mark.parametrize(("output", "classes", "units"), OUTPUTS)
def test_first_answers_favour_no_class(output: Output, classes: int, units: int) -> None:
    head = heads.build_head(6, classes, DEEP, output=output)
    probs = heads.class_probs(np.asarray(head(POOLED)), output)
    np.testing.assert_allclose(probs, np.full((4, classes), 1 / classes), atol=1e-6)


def test_the_seed_decides_and_no_two_layers_have_the_same() -> None:
    first, same, other = (
        heads.build_head(6, 2, changed(DEEP, hidden_units=(6, 6), seed=seed), output="sigmoid") for seed in (3, 3, 9)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), same.get_weights(), strict=True))
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0], first.get_weights()[2])
    masks = [np.asarray(first.get_layer(f"dropout_{n}")(np.ones((9, 9)), training=True)) for n in range(3)]
    again = [np.asarray(same.get_layer(f"dropout_{n}")(np.ones((9, 9)), training=True)) for n in range(3)]
    assert np.array_equal(masks, again)
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


def test_a_file_does_not_depend_on_what_the_process_built_before(tmp_path: Path) -> None:
    for name in ("first.keras", "second.keras"):
        keras_files.save_model(heads.build_head(6, 2, DEEP, output="logit"), tmp_path / name)
    assert (tmp_path / "first.keras").read_bytes() == (tmp_path / "second.keras").read_bytes()


def test_class_probs() -> None:
    one = np.array([[0.25], [1.0]], np.float32)
    assert heads.class_probs(one, "sigmoid").tolist() == [[0.75, 0.25], [0.0, 1.0]]
    two = np.array([[0.25, 0.75]], np.float32)
    assert heads.class_probs(two, "softmax").tolist() == two.tolist()


def test_class_probs_of_logits_are_right_to_the_last_digits() -> None:
    logits = np.array([0.0, np.log(3), 60.0, -60.0, 500.0, -500.0])
    with np.errstate(all="raise", under="ignore"):
        probs = heads.class_probs(logits[:, None].astype(np.float32), "logit")
    tiny = np.exp(-60.0)
    expected = [[0.5, 0.5], [0.25, 0.75], [tiny, 1], [1, tiny], [0, 1], [1, 0]]
    np.testing.assert_allclose(probs, expected, rtol=1e-5)


def test_targets() -> None:
    labels = np.array([1, 0, 1])
    assert heads.targets(labels, 1).tolist() == [[1], [0], [1]]
    assert heads.targets(labels, 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert heads.targets(labels, 1).dtype == heads.targets(labels, 3).dtype == np.float32
