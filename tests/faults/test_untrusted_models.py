"""Models and weights from elsewhere: refused in a line, nothing of them runs, and nothing is ever unpickled."""

import pickle
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from inference.classifier import FORMATS, load
from tasks import backbone, keras_files, stage
from tasks.export.replay import PATHS
from tasks.params import BackboneParams
from tasks.quiet_tf import Model, Tensor
from tasks.stage import PawlineError
from tests.faults.conftest import Report
from tests.faults.hostile_models import CANARY, HUGE, MODELS, WEIGHTS, Make, Touch
from tests.faults.results import Fault
from tests.tasks.conftest import IMAGE, TRAIN_HEAD, changed

MOST_BYTES = 128 << 20  # half of what a bomb unpacks to

UNPICKLED: list[str] = []
OURS = ("multiprocessing", "concurrent/futures")  # what a process of ours says to another: it has the same rights


def note_unpickling(event: str, arguments: tuple[Any, ...]) -> None:
    """The interpreter tells of each name that a pickle asks for."""
    if event == "pickle.find_class":
        UNPICKLED.append(".".join(map(str, arguments)))


@pytest.fixture(scope="module", autouse=True)
def _watched() -> None:
    """Watch from now on: an audit hook stays as long as the process."""
    sys.addaudithook(note_unpickling)


@contextmanager
def no_unpickling() -> Iterator[None]:
    UNPICKLED.clear()
    yield
    assert UNPICKLED == []


def load_model(path: Path) -> Model:
    return keras_files.load_model(path)


def take_weights(path: Path) -> None:
    """As the stage `backbone` takes a file that params.yaml names."""
    weights_json = path.parent / "weights.json"
    stage.write_json({"source": "file", "sha256": stage.sha256_of(path)}, weights_json)
    params = BackboneParams(name="MobileNetV2", width=1.0, source="file", path=str(path))
    backbone.backbone(params=params, weights_json=weights_json, out_dir=path.parent / "backbone")


def read_weights(path: Path) -> None:
    backbone.read_weights(path)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """What is said in a line, once it is certain that nothing ran, was written or took much memory."""
    before, memory = set(path.parent.iterdir()), peak_bytes()
    with no_unpickling(), pytest.raises(PawlineError) as error:
        read(path)
    assert not list(path.parent.parent.rglob(CANARY))
    assert set(path.parent.iterdir()) - before <= {path.parent / "weights.json"}
    assert peak_bytes() - memory < MOST_BYTES
    assert "\n" not in str(error.value)
    return str(error.value)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.fixture(scope="module")
def ready() -> None:
    """What a first model takes once, of memory and of modules."""
    from tasks import backbones

    backbones.build_without_top("MobileNetV2", 1.0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where a canary would lie, in a folder that nothing may be written to but by name."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_no_model_with_anything_but_our_layers(place: Path, ready: None, report: Report) -> None:
    said = {}
    for what, (name, make) in MODELS.items():
        make(place / name)
        said[what] = refusal(load_model, place / name)
        assert said[what].startswith(str(place / name)), what
        (place / name).unlink()
    assert "a Lambda is no layer that Pawline builds" in said["a lambda"]
    assert "would be 268,435,456 bytes" in said["a zip bomb"]
    for old in ("a", "an old"):
        assert "units of a layer is 150,000,000, above 65,536" in said[f"{old} layer of 150 million units"]
    for what in ("layers of more than the file has", "old layers of more than the file has"):
        assert "its layers would be 1,310,720 bytes, of 0 in the file" in said[what]
    report(Fault.MODELS, "models for Keras: " + ", ".join(MODELS), tries=len(MODELS), held=len(said))


def test_no_weights_with_anything_but_tensors(place: Path, ready: None, report: Report) -> None:
    said = {}
    for what, (name, make) in WEIGHTS.items():
        make(place / name)
        said[what] = refusal(take_weights, place / name)
        if name == "w.h5":  # as if it were what the stage itself has written
            assert refusal(read_weights, place / name).startswith(f"{place / name} is ")
        (place / name).unlink()
    assert "a lies in another file" in said["bytes of another file"]
    report(Fault.MODELS, "weights as `backbone.path`: " + ", ".join(WEIGHTS), tries=len(WEIGHTS), held=len(said))


def test_a_model_that_is_what_it_should_be(place: Path, ready: None) -> None:
    """So that all that is refused is refused for what it is; tests/tasks/test_backbone.py has such weights."""
    from tasks.quiet_tf import keras

    image = keras.Input((4,), name="image")
    for name in ("m.keras", "m.h5"):
        keras_files.save_model(keras.Model(image, keras.layers.Dense(1, name="layer")(image)), place / name)
        load_model(place / name)


def export_of(folder: Path, engine: str, name: str) -> Path:
    """Write the export.json of a folder with a file in it, in which all fits together."""
    path = folder / name
    sizes = [file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file()]
    facts: dict[str, Any] = {
        "labels": ["cat", "dog"],
        "image": {"size_px": 8, "resize": "squash"},
        "classifier_sha256": stage.sha256_of(path),
        "formats": {FORMATS[engine]: {"path": name, "bytes": sum(sizes)}},
    }
    stage.write_json(facts | {stage.FACTS_DIGEST: stage.facts_digest(facts)}, folder / "export.json")
    return folder


NETWORK = """<?xml version="1.0"?>{doctype}<net name="m" version="11"><layers>
<layer id="0" name="image" type="Parameter" version="opset1"><data shape="?,8,8,3" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>-1</dim><dim>8</dim><dim>8</dim><dim>3</dim></port></output></layer>
<layer id="1" name="it" {layer}
<output><port id="1" precision="FP32"><dim>{huge}</dim></port></output></layer>
<layer id="2" name="answer" type="Result" version="opset1"><input><port id="0"/></input></layer></layers>
<edges><edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>"""
CONSTANT = 'type="Const" version="opset1"><data element_type="f32" shape="{n}" offset="0" size="{bytes}"/>'
EXPORTS: dict[str, tuple[str, str, Make]] = {
    "a lambda": ("keras", *MODELS["a lambda"]),
    "a pickle for LiteRT": ("litert", "m.tflite", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a pickle for OpenVINO": ("openvino", "m.xml", lambda path: path.write_bytes(pickle.dumps(Touch()))),
    "a file beside the folder": ("litert", "../passwords", lambda path: path.write_bytes(b"root")),
    "a layer that nobody knows": (
        *("openvino", "m.xml"),
        lambda path: path.write_text(NETWORK.format(doctype="", layer='type="Run" version="extension">', huge=1)),
    ),
    "a constant beyond its file": (
        *("openvino", "m.xml"),
        lambda path: path.write_text(
            NETWORK.format(doctype="", layer=CONSTANT.format(n=HUGE, bytes=4 * HUGE), huge=HUGE)
        ),
    ),
    "entities of another file": (
        *("openvino", "m.xml"),
        lambda path: path.write_text(
            NETWORK.format(
                doctype='<!DOCTYPE n [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
                layer='type="&e;" version="opset1">',
                huge=1,
            )
        ),
    ),
}


def test_no_export_with_anything_but_a_network(place: Path, ready: None, report: Report) -> None:
    said = {}
    for what, (engine, name, make) in EXPORTS.items():
        folder = place / "export"
        folder.mkdir()
        make(folder / name)
        (folder / name).with_suffix(".bin").write_bytes(bytes(64))
        export_of(folder, engine, name)
        said[what] = refusal(lambda path: load(path.parent), folder / "export.json")
        shutil.rmtree(folder)
    assert "which is no file of its folder" in said["a file beside the folder"]
    report(Fault.MODELS, "exports for `pawline predict`: " + ", ".join(EXPORTS), tries=len(EXPORTS), held=len(said))


def after(operation: Callable[[Tensor], object], tf: Tensor, image: Tensor) -> Tensor:
    """The image, once an operation ran that gives nothing."""
    with tf.control_dependencies([operation(tf.raw_ops)]):
        return tf.identity(image)


def save(raw: Tensor) -> object:
    return raw.Save(filename=CANARY, tensor_names=["x"], data=[[1.0]])


def save_as_tensorflow_does(raw: Tensor) -> object:
    return raw.SaveV2(prefix=CANARY, tensor_names=["x"], shape_and_slices=[""], tensors=[[1.0]])


def restore(raw: Tensor) -> object:
    return raw.RestoreV2(prefix="/etc/passwd", tensor_names=["x"], shape_and_slices=[""], dtypes=["float32"])[0].op


def remap(raw: Tensor) -> object:
    options = {"new_vocab_offset": 0, "num_new_vocab": 1}
    return raw.GenerateVocabRemapping(new_vocab_file="/etc/passwd", old_vocab_file="/etc/passwd", **options)[0].op


def load_and_remap(raw: Tensor) -> object:
    rows = {"row_remapping": [0], "col_remapping": [0], "initializing_values": [], "num_rows": 1, "num_cols": 1}
    return raw.LoadAndRemapMatrix(ckpt_path="/etc/passwd", old_tensor_name="x", **rows).op


def decode(raw: Tensor) -> object:
    fields = {"field_names": ["x"], "output_types": ["float32"], "descriptor_source": "/etc/passwd"}
    return raw.DecodeProtoV2(bytes=["x"], message_type="X", **fields)[0].op


def debug(tf: Tensor, image: Tensor) -> Tensor:
    return tf.raw_ops.DebugIdentity(input=image, tensor_name="x:0", debug_urls=[f"file://{Path.cwd() / CANARY}"])


def listed(tf: Tensor, image: Tensor) -> Tensor:
    return tf.strings.length(tf.io.matching_files("/*")[0]) + tf.cast(image, tf.int32)


def read(tf: Tensor, image: Tensor) -> Tensor:
    return tf.strings.length(tf.io.read_file("/etc/passwd")) + tf.cast(image, tf.int32)


def called(tf: Tensor, image: Tensor) -> Tensor:
    return tf.function(partial(after, save_as_tensorflow_does, tf))(image)


def standing_in(tf: Tensor, image: Tensor) -> Tensor:
    return tf.function(tf.identity, experimental_attributes={"api_implements": "x"})(image)


SAVED_MODELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Python": lambda tf, image: tf.py_function(lambda x: x, [image], tf.float32),
    "a file that it writes": partial(after, lambda raw: raw.WriteFile(filename=CANARY, contents="x")),
    "a folder that it lists": listed,
    "a file that it reads": read,
    "a file that it saves": partial(after, save),
    "a checkpoint that it saves": partial(after, save_as_tensorflow_does),
    "a checkpoint that a function of its own saves": called,
    "a checkpoint that it restores": partial(after, restore),
    "a file for who debugs it": debug,
    "a file of words": partial(after, remap),
    "a checkpoint that it takes a matrix of": partial(after, load_and_remap),
    "a file of descriptors": partial(after, decode),
    "a function that stands in for another": standing_in,
}


def answer_by(body: Callable[[Tensor, Tensor], Tensor], tf: Tensor, image: Tensor) -> dict[str, Tensor]:
    return {"probabilities": body(tf, image)}


def test_no_graph_that_reaches_out_of_itself(place: Path, ready: None, report: Report) -> None:
    """What loads a SavedModel or ONNX here loads what `export` has written; should it be another, it says so."""
    from tasks.export.replay import open_export
    from tasks.quiet_tf import tf

    said = {}
    for what, body in SAVED_MODELS.items():
        module, spec = tf.Module(), tf.TensorSpec((None,), tf.float32)
        module.answer = tf.function(partial(answer_by, body, tf), input_signature=[spec])
        tf.saved_model.save(module, "saved", signatures={"serving_default": module.answer})
        for name in ("saved_model", "saved_model_bytes"):
            said[what] = refusal(partial(open_export, name), place / "saved")
            assert " is refused: its graph has a " in said[what]
        shutil.rmtree("saved")
    assert said["a checkpoint that it saves"].endswith("its graph has a SaveV2 that can be called")
    said["TensorFlow 1"] = refusal(partial(open_export, "saved_model"), of_tensorflow_1(place))
    assert said["TensorFlow 1"].endswith("is refused: it is no SavedModel of TensorFlow 2")
    said["ONNX"] = refusal(partial(open_export, "onnx"), onnx_with_data_elsewhere(place))
    assert said["ONNX"].endswith("m.onnx is refused: weights lies in another file")
    tried = f"{', '.join(SAVED_MODELS)}; one of TensorFlow 1; ONNX whose weights lie in another folder"
    what = f"SavedModels that reach out to {tried}"
    report(Fault.MODELS, what, tries=len(SAVED_MODELS) + 2, held=len(said))


def of_tensorflow_1(folder: Path) -> Path:
    """A SavedModel that is loaded as those of old, which run what they begin with."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel()
    graph.meta_graphs.add().graph_def.node.add(name="x", op="NoOp")
    (folder / "old").mkdir()
    (folder / "old/saved_model.pb").write_bytes(graph.SerializeToString())
    return folder / "old"


def test_every_export_of_our_own_is_allowed(place: Path, whole_suite_only: None, report: Report) -> None:
    """Of every backbone; the heads and the ways to make squares go round."""
    from tasks import backbones, heads, model
    from tasks.export.formats import Exporter
    from tasks.export.replay import open_export

    heads_of = product(get_args(model.Pooling), get_args(heads.Output), ("relu", "gelu", "silu", "tanh"))
    resizes = cycle(("squash", "crop", "pad"))
    allowed = 0
    for name, (pooling, output, activation) in zip(backbones.BACKBONES, islice(heads_of, 0, None, 3), strict=False):
        backbone = backbones.build_backbone(name, 96)
        params = changed(TRAIN_HEAD, hidden_units=[16], activation=activation)
        head = heads.build_head(backbone.output.shape[-1], 3 if output == "softmax" else 2, params, output=output)
        classifier = model.build_classifier(backbone, head, pooling=pooling, output=output)
        keras_files.save_model(classifier, place / "classifier.keras")
        square = changed(IMAGE, size_px=96, resize=next(resizes))
        exporter = Exporter(place / "classifier.keras", load_model(place / "classifier.keras"), square, place)
        exporter.write_h5()
        exporter.write_saved_model(from_bytes=True)
        for kind in ("h5", "saved_model", "saved_model_bytes"):
            open_export(kind, place / PATHS[kind])
            allowed += 1
        shutil.rmtree(place / "saved_model")
    tries = 3 * len(backbones.BACKBONES)
    report(Fault.MODELS, "exports of our own, of every backbone", tries=tries, held=allowed, seen="taken")


def onnx_with_data_elsewhere(folder: Path) -> Path:
    import onnx

    weights = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "weights")
    onnx.external_data_helper.set_external_data(weights, "../../../../etc/passwd", 0, 16)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    image, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in ("images", "probabilities")
    )
    add = onnx.helper.make_node("Add", ["images", "weights"], ["probabilities"])
    graph = onnx.helper.make_graph([add], "m", [image], [answer], [weights])
    path = folder / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path
