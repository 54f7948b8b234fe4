"""A service that really runs, on a port of its own, with a small network that tells colours apart."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import uvicorn
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from inference import classifier, service_server
from inference.service import Served, create_app
from inference.service_limits import own_hosts
from tasks import runtimes

LABELS = ["red", "green", "blue"]
DIGEST = "5e" * 32
SIZE_PX = 96
PATIENCE_SECONDS = 20.0


class Running(NamedTuple):
    """A service: where it listens, and what it is."""

    port: int
    server: uvicorn.Server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=PATIENCE_SECONDS)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS)

    def metric(self, name: str, /, **labels: str) -> float:
        """Return a counter as `/metrics` has it."""
        with self.client() as http:
            families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)


def make_export(folder: Path, labels: list[str] | None = None) -> Path:
    """Write an export whose network answers with the label of the colour of which a picture has most."""
    openvino = runtimes.openvino()
    from openvino import opset13 as ops

    labels = labels or LABELS
    image = ops.parameter([-1, SIZE_PX, SIZE_PX, 3], np.float32, name="image")
    mean = ops.reduce_mean(image, np.array([1, 2]), keep_dims=False)
    weights = np.eye(3, len(labels), dtype=np.float32) / 50
    network = openvino.Model([ops.softmax(ops.matmul(mean, weights, False, False), 1)], [image])
    path = folder / "openvino" / "classifier.xml"
    path.parent.mkdir(parents=True)
    openvino.save_model(network, path, compress_to_fp16=False)
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    facts = {
        "labels": labels,
        "image": {"size_px": SIZE_PX, "resize": "squash"},
        "classifier_sha256": DIGEST,
        "formats": {"openvino": {"path": "openvino/classifier.xml", "bytes": size}},
    }
    (folder / "export.json").write_text(json.dumps(facts))
    return folder


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (120, 90)) -> bytes:
    """Return an encoded picture of one colour."""
    content = BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return content.getvalue()


@contextmanager
def running(export_dir: Path, **changes: Any) -> Iterator[Running]:  # noqa: ANN401 - fields of `Served`
    """Serve in a thread until the block ends."""
    loaded = classifier.load(export_dir, threads=1)
    served = Served(
        classifier=loaded, name="colours", digest=DIGEST, max_bytes=1_000_000, unsure_below=None, hosts=None
    )
    with service_server.listen("127.0.0.1", 0) as listening:
        served = replace(served, hosts=own_hosts("127.0.0.1", "127.0.0.1"))
        server = service_server.make_server(create_app(replace(served, **changes)))
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        try:
            yield Running(listening.getsockname()[1], server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
