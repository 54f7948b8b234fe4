"""No telemetry. What ONNX Runtime would leave in the user's folders: test_time_exports.py."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CODE = """
import os, sys
from tasks.runtimes import onnxruntime, openvino
print(openvino().__name__, sys.modules["openvino_telemetry"])
print(onnxruntime().__name__, os.environ["ORT_DISABLE_TELEMETRY"])
"""

# The core goes and comes where each caller has its own; Python's fault handler has a signal stack, and so uses any.
SIGNAL = """
import faulthandler, signal
import numpy as np
from tasks.runtimes import openvino, openvino_core
from openvino import opset13 as ops

faulthandler.enable()
image = ops.parameter([1, 8], np.float32)
network = openvino().Model([ops.matmul(image, np.ones((8, 8), np.float32), False, False)], [image])
cores = []
for _ in range(2):
    cores.append(openvino_core())
    cores[-1].compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})([np.ones((1, 8), np.float32)])
while cores:
    del cores[0]
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_is_heard_when_engines_have_come_and_gone() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNAL], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n")


def test_no_telemetry(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "openvino None\nonnxruntime 1\n"
    assert list(tmp_path.iterdir()) == []
