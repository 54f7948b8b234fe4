"""ONNX files of the same network are the same, whatever a converter called its parts."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tasks.export.onnx_names import rename_by_place


def network(prefix: str, *, swapped: bool) -> onnx.ModelProto:
    """(x * a + b) * (x * a), with names, order and remarks of its own."""
    names = {key: f"{prefix}{key}" for key in ("x", "a", "b", "product", "sum", "y", "unused")}
    nodes = [
        helper.make_node("Mul", [names["x"], names["a"]], [names["product"]], name=f"{prefix}1"),
        helper.make_node("Add", [names["product"], names["b"]], [names["sum"]], name=f"{prefix}2"),
        helper.make_node("Neg", [names["x"]], [names["unused"]]),
        helper.make_node("Mul", [names["sum"], names["product"]], [names["y"]], name=f"{prefix}3"),
    ]
    weights = [
        numpy_helper.from_array(np.array([value], np.float32), names[key]) for key, value in (("a", 3), ("b", 5))
    ]
    value = [helper.make_tensor_value_info(names[key], onnx.TensorProto.FLOAT, [f"{prefix}n", 1]) for key in ("x", "y")]
    if swapped:
        nodes[1:3], weights = nodes[2:0:-1], weights[::-1]
    graph = helper.make_graph(nodes, f"{prefix}graph", value[:1], value[1:], weights, doc_string=f"by {prefix}")
    return helper.make_model(graph)


def test_names_come_from_places() -> None:
    first, second = (
        rename_by_place(network(prefix, swapped=swapped), "images", "probabilities")
        for prefix, swapped in (("p__1", False), ("q__20", True))
    )
    assert first.SerializeToString() == second.SerializeToString()
    onnx.checker.check_model(first, full_check=True)
    assert [node.op_type for node in first.graph.node] == ["Mul", "Add", "Mul"]
    from onnx.reference import ReferenceEvaluator

    answers = ReferenceEvaluator(first).run(["probabilities"], {"images": np.array([[2], [4]], np.float32)})
    np.testing.assert_array_equal(answers, [[[66], [204]]])
