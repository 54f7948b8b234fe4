from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference.seam import split_at_share
from tasks import runtimes
from tasks.runtimes import openvino_core

if TYPE_CHECKING:
    from openvino import Model

SIDE = 8
openvino = runtimes.openvino()  # without its telemetry, also for the tests that come later in this process
ops = openvino.opset13


def residual_network(blocks: int) -> "Model":
    """Blocks of two convolutions each, around each of which the tensor is carried on."""
    x = image = ops.parameter([1, 4, SIDE, SIDE], np.float32, name="image")
    for block in range(blocks):
        inside = x
        for number in range(2):
            weights = np.random.default_rng(10 * block + number).normal(size=(4, 4, 3, 3)).astype(np.float32) / 6
            inside = ops.relu(ops.convolution(inside, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        x = ops.add(x, inside)
    return openvino.Model([x], [image])


def convolutions(network: "Model") -> int:
    return sum(node.get_type_name() == "Convolution" for node in network.get_ops())


def answer(networks: list["Model"]) -> np.ndarray:
    carry = np.random.default_rng(0).normal(size=(1, 4, SIDE, SIDE)).astype(np.float32)
    for network in networks:
        exact = openvino_core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        carry = next(iter(exact([carry]).values()))
    return carry


@pytest.mark.parametrize(("share", "before"), [(0.1, 2), (0.5, 4), (0.51, 6)])
def test_a_network_is_cut_between_blocks_and_gives_the_same(share: float, before: int) -> None:
    whole = answer([residual_network(4)])
    parts = split_at_share(residual_network(4), share)
    assert [convolutions(part) for part in parts] == [before, 8 - before]
    np.testing.assert_allclose(answer(parts), whole, rtol=1e-5)


def test_a_network_that_cannot_be_cut_is_left_whole() -> None:
    [whole] = split_at_share(residual_network(1), 0.9)
    assert convolutions(whole) == 2


def test_mobilenet_is_cut_at_its_share(exports: Path) -> None:
    network = openvino_core().read_model(exports / "openvino/classifier.xml")
    first, rest = split_at_share(network, 0.42)
    kinds = ("Convolution", "GroupConvolution")
    counts = [sum(node.get_type_name() in kinds for node in part.get_ops()) for part in (first, rest)]
    assert 0.42 <= counts[0] / sum(counts) < 0.5
