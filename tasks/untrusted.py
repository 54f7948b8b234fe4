"""What may be in a file that Keras or h5py is to read: tensors, and layers that Pawline builds. Nothing that is code.

Keras refuses much of this itself, each version a little more; what is said here holds whatever its version.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from tasks import stage
from tasks.stage import PawlineError

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, "metadata.json", WEIGHTS}
# In a model's configuration: what the eight backbones and the head are made of.
ALLOWED = {
    *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Cropping2D", "Dense"),
    *("DepthwiseConv2D", "Dropout", "Functional", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer"),
    *("MaxPooling2D", "Multiply", "Normalization", "ReLU", "Rescaling", "Reshape", "ZeroPadding2D"),
    *("DTypePolicy", "GlorotUniform", "Ones", "VarianceScaling", "Zeros", "__keras_tensor__"),
}
# In the graph of a SavedModel: what `export` writes of any backbone, head and way to make squares. With another version
# of TensorFlow it may be more, of which each is to be looked at: no more than numbers and text may come of it.
COMPUTES = {
    *("Abs", "AddV2", "All", "Any", "Assert", "AvgPool", "BiasAdd", "BitwiseAnd", "Cast", "Ceil", "ConcatV2", "Const"),
    *("Conv2D", "DecodeBmp", "DecodeGif", "DecodeJpeg", "DecodePng", "DecodeRaw", "DecodeWebP"),
    *("DepthwiseConv2dNative", "EnsureShape", "Equal", "Erfc", "ExpandDims", "Fill", "GatherV2", "Greater"),
    *("GreaterEqual", "Identity", "IdentityN", "If", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr"),
    *("MatMul", "Max", "MaxPool", "Maximum", "Mean", "Minimum", "Mul", "Neg", "NoOp", "Pack", "Pad", "PartitionedCall"),
    *("Placeholder", "Pow", "Prod", "Range", "RealDiv", "Relu", "Relu6", "Reshape", "RightShift", "Round", "Rsqrt"),
    *("Select", "SelectV2", "Shape", "Sigmoid", "Size", "Softmax", "Sqrt", "Squeeze", "StatefulPartitionedCall"),
    *("StatelessIf", "StatelessWhile", "StridedSlice", "Sub", "Substr", "Sum", "Tanh", "TensorListFromTensor"),
    *("TensorListGetItem", "TensorListReserve", "TensorListSetItem", "TensorListStack", "Transpose", "Unpack"),
    *("Where", "While", "ZerosLike"),
}
# In the two functions that every SavedModel has for its variables, and that nothing calls.
SAVES = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "StaticRegexFullMatch", "StringJoin"}
MOST_SIZE = 1 << 16  # no layer has more units, filters or pixels of a side
NO_SIZES = {"seed", "shared_object_id"}  # numbers in a configuration that may be of any size
MOST_TIMES = 100  # larger than its bytes in the file may nothing be
SMALL_BYTES = 1 << 20  # but for what is small anyway


class RefusedError(ValueError):
    """A file holds what has no business in it."""


class Checked(NamedTuple):
    """What a file holds, once it was looked into.

    Attributes:
        config: Of the model, as JSON, if it is one.
        weights_bytes: What its tensors take in it.
    """

    config: str | None
    weights_bytes: int


@contextmanager
def looking_into(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a file that is looked into in the block.

    Raises:
        PawlineError: It is refused, or cannot be read for what it is.
    """
    try:
        with stage.reading(path):
            yield
    except PawlineError as error:
        if isinstance(error.__cause__, RefusedError):
            raise PawlineError(f"{path} is refused: {error.__cause__}") from None
        raise


def check_archive(path: Path, *, as_model: bool = True) -> Checked:
    """Look into a `.keras` file: its members, its weights and, if it is taken as a model, what its layers are.

    Raises:
        RefusedError: It holds anything else.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sorted(names) != sorted(MEMBERS):
            strange = sorted(set(names) ^ MEMBERS) or sorted(names)
            raise RefusedError(f"not the members of a .keras file: {strange[0]!r}")
        for member in archive.infolist():
            _check_size(member.filename, member.file_size, member.compress_size)
        contents = {name: archive.read(name) for name in names}  # to their ends: the checksums, too
    config = contents[CONFIG].decode() if as_model else None
    if config is not None:
        check_config(json.loads(config))
    with h5py.File(io.BytesIO(contents[WEIGHTS]), "r") as file:
        return Checked(config, check_tensors(file))


def check_hdf5(path: Path) -> Checked:
    """Look into a `.h5` file: its tensors and, if it holds a model, what its layers are.

    Raises:
        RefusedError: It holds anything else.
    """
    with h5py.File(path, "r") as file:
        weights_bytes, config = check_tensors(file), file.attrs.get("model_config")
        if config is not None:
            check_config(json.loads(config))
        return Checked(config, weights_bytes)


def check_weights(needed_bytes: int, checked: Checked) -> None:
    """Allow a model whose weights are all in its file: before they are made, of whatever size its layers say.

    Raises:
        RefusedError: It needs more.
    """
    if needed_bytes > checked.weights_bytes + SMALL_BYTES:
        raise RefusedError(f"its layers would be {needed_bytes:,} bytes, of {checked.weights_bytes:,} in the file")


def check_config(config: Any) -> None:  # noqa: ANN401 - any JSON value
    """Allow layers that Pawline builds, and what they are made of; a custom object or a lambda is none of them.

    Raises:
        RefusedError: There is another, or one of an absurd size.
    """
    for key, value in _values(config):
        if isinstance(value, int) and abs(value) > MOST_SIZE and key not in NO_SIZES:
            raise RefusedError(f"{key} of a layer is {value:,}, above {MOST_SIZE:,}")
        if not isinstance(value, dict) or "class_name" not in value:
            continue
        name, module = value["class_name"], value.get("module") or "keras"
        if name not in ALLOWED or str(module).split(".")[0] not in ("keras", "builtins"):
            raise RefusedError(f"a {name} is no layer that Pawline builds")


def _values(config: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
    """Yield all that a configuration holds, however deep, and what it is called; in a list, as the list is."""
    waiting = [("", config)]
    while waiting:
        key, one = waiting.pop()
        yield key, one
        if isinstance(one, dict):
            waiting += one.items()
        elif isinstance(one, list):
            waiting += [(key, item) for item in one]


def check_tensors(file: h5py.File) -> int:
    """Allow groups, and numbers that lie in this very file.

    Returns:
        The bytes that the numbers take in it.

    Raises:
        RefusedError: There is a link, or a dataset that lies elsewhere, holds no numbers or is larger than its bytes.
    """
    waiting, seen, stored = [file["/"]], set(), 0
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise RefusedError(f"{name} is a link out of its place")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise RefusedError(f"{name} is there twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append(item)
            else:
                _check_dataset(name, item)
                stored += item.id.get_storage_size()
    return stored


def check_graph(saved_model: Any) -> None:  # noqa: ANN401 - protobuf's messages have no types here
    """Allow what computes in a SavedModel, as a message, and what saves it where nothing calls that.

    Raises:
        RefusedError: There is another operation, or it is of TensorFlow 1's form, which runs more when it is loaded.
    """
    if len(saved_model.meta_graphs) != 1 or not saved_model.meta_graphs[0].HasField("object_graph_def"):
        raise RefusedError("it is no SavedModel of TensorFlow 2")
    (meta,) = saved_model.meta_graphs
    functions = meta.graph_def.library.function
    for node in _messages(saved_model, "NodeDef"):
        if node.op not in COMPUTES | SAVES:
            raise RefusedError(f"its graph has a {node.op}")
    if any("api_implements" in function.attr for function in functions):
        raise RefusedError("its graph has a function that stands in for another")
    called = {call.name for call in _messages(meta.graph_def.library, "NameAttrList")}
    loaded = meta.object_graph_def.SerializeToString()
    for function in functions:
        name, ops = function.signature.name, sorted(SAVES & {node.op for node in function.node_def})
        if ops and (name in called or name.encode() in loaded):
            raise RefusedError(f"its graph has a {ops[0]} that can be called")


def check_onnx(model: Any) -> None:  # noqa: ANN401 - as above
    """Allow tensors that lie in an ONNX model itself, as a message.

    Raises:
        RefusedError: One lies in another file.
    """
    for tensor in _messages(model, "TensorProto"):
        if tensor.data_location == tensor.EXTERNAL:
            raise RefusedError(f"{tensor.name} lies in another file")


def _messages(message: Any, name: str) -> Iterator[Any]:  # noqa: ANN401 - as above
    """Yield all messages of a type that a message holds, however deep."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if one.DESCRIPTOR.name == name:
            yield one
        for field, value in one.ListFields():
            if field.type != field.TYPE_MESSAGE:
                continue
            if field.message_type.GetOptions().map_entry:
                held = value.values()
                waiting += [item for item in held if hasattr(item, "ListFields")]
            else:
                waiting += [value] if hasattr(value, "ListFields") else list(value)


def _check_dataset(name: str, item: Any) -> None:  # noqa: ANN401 - h5py ships no types
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biufV" or item.dtype.fields:
        raise RefusedError(f"{name} holds no numbers")
    if item.external or item.is_virtual:
        raise RefusedError(f"{name} lies in another file")
    _check_size(name, item.nbytes, item.id.get_storage_size())


def _check_size(name: str, claimed: int, stored: int) -> None:
    if claimed > SMALL_BYTES and claimed > MOST_TIMES * stored:
        raise RefusedError(f"{name} would be {claimed:,} bytes, of {stored:,} in the file")
