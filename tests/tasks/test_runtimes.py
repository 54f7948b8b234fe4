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


def test_no_telemetry(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "openvino None\nonnxruntime 1\n"
    assert list(tmp_path.iterdir()) == []
