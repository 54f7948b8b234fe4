"""Where a network can be cut in two: between two parts that exchange a single tensor."""

from typing import TYPE_CHECKING, Any

from tasks import runtimes

if TYPE_CHECKING:
    from openvino import Model as Network

CONVOLUTIONS = ("Convolution", "GroupConvolution")


def split_at_share(network: "Network", share: float) -> list["Network"]:
    """Cut an OpenVINO network at the first single tensor that has this share of the convolutions before it.

    The network given is taken apart: use what is returned instead.

    Returns:
        Both parts, or the network alone if it has no such place.
    """
    openvino = runtimes.openvino()

    node = _find_seam(network, share)
    if node is None:
        return [network]
    shape, element_type = node.output(0).get_partial_shape(), node.output(0).get_element_type()
    carry = openvino.opset8.parameter(shape, element_type, name="carry")
    first_input, results = network.get_parameters(), network.get_results()
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(carry.output(0))
    return [openvino.Model([node.output(0)], first_input), openvino.Model(results, [carry])]


def _find_seam(network: "Network", share: float) -> Any:  # noqa: ANN401 - OpenVINO ships no types
    """Return the node whose output is all that crosses from what is before it to what comes after."""
    nodes = _nodes_from_the_input(network)
    wanted = share * sum(node.get_type_name() in CONVOLUTIONS for node in nodes)
    last_reader = {}  # of each node: the position of the last node that reads it
    for position, node in enumerate(nodes):
        for given in node.inputs():
            last_reader[given.get_source_output().get_node().get_name()] = position
    done, read_until = 0, 0
    for position, node in enumerate(nodes[:-1]):
        done += node.get_type_name() in CONVOLUTIONS
        alone = read_until <= position  # nothing before this node is read after it
        if alone and done >= wanted:
            return node
        read_until = max(read_until, last_reader.get(node.get_name(), 0))
    return None


def _nodes_from_the_input(network: "Network") -> list[Any]:
    """Return the input and the nodes that depend on it, in the order of computing."""
    nodes = list(network.get_parameters())
    reached = {node.get_name() for node in nodes}
    for node in network.get_ordered_ops():
        sources = {given.get_source_output().get_node().get_name() for given in node.inputs()}
        if sources & reached and node.get_type_name() != "Result":
            reached.add(node.get_name())
            nodes.append(node)
    return nodes
