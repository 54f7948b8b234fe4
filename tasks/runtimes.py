"""Libraries that run exported networks, imported without their telemetry."""

import importlib
import os
import sys
from types import ModuleType


def openvino() -> ModuleType:
    """Import OpenVINO without its telemetry."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import then fails
    return importlib.import_module("openvino")


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry, which keeps a number of the machine in the user's cache."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")
