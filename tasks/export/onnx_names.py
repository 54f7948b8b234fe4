"""ONNX files whose bytes depend on the network alone: tf2onnx counts its names up in the order of hash tables."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def rename_by_place(model: "ModelProto", input_name: str, output_name: str) -> "ModelProto":
    """Order the nodes by what the output needs, and name them, their tensors and the weights by their places.

    Args:
        model: Of one input and one output; its nodes have no graphs inside.
        input_name: What its input is called afterwards.
        output_name: What its output is called.
    """
    graph = model.graph
    names = {graph.input[0].name: input_name, "": ""}  # an input that is left out has no name
    constants = {constant.name: constant for constant in graph.initializer}
    ordered: list[NodeProto] = []
    weights: list[TensorProto] = []
    makers = {name: maker for maker in graph.node for name in maker.output}
    for node in _in_order(makers, graph.output[0].name):
        for name in node.input:
            if name in constants and name not in names:
                names[name] = constants[name].name = f"weights_{len(weights)}"
                weights.append(constants[name])
        node.name = f"{node.op_type}_{len(ordered)}"
        names |= {name: f"{node.name}_{at}" for at, name in enumerate(node.output)}
        ordered.append(node)
    names[graph.output[0].name] = output_name
    for node in ordered:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for kept, replaced in ((graph.node, ordered), (graph.initializer, weights)):
        del kept[:]
        kept.extend(replaced)
    del graph.value_info[:]
    graph.name, graph.doc_string = "classifier", ""
    for value, name in ((graph.input[0], input_name), (graph.output[0], output_name)):
        value.name = name
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _in_order(makers: dict[str, "NodeProto"], output: str) -> Iterator["NodeProto"]:
    """Yield the nodes that an output needs, each after those that it needs itself.

    Args:
        makers: The node that makes a tensor, by the tensor's name.
        output: The tensor that is wanted.
    """
    done: set[int] = set()
    waiting = [makers[output]]
    while waiting:
        node = waiting[-1]
        needed = [makers[name] for name in node.input if name in makers and id(makers[name]) not in done]
        if needed:
            waiting.append(needed[0])
            continue
        waiting.pop()
        if id(node) not in done:
            done.add(id(node))
            yield node
