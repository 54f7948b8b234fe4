"""Libraries that run exported networks, imported without their telemetry."""

import importlib
import os
import sys
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openvino import Core


def openvino() -> ModuleType:
    """Import OpenVINO without its telemetry."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import then fails
    return importlib.import_module("openvino")


@cache
def openvino_core() -> "Core":
    """Return OpenVINO's core, the only one of this process.

    On processors with AMX each core replaces the main thread's signal stack and takes its own away when it goes. One of
    several leaves a stack that is no more (https://github.com/openvinotoolkit/openvino/pull/11894), and the next
    signal, such as that of Ctrl-C, ends the process with a segmentation fault.
    """
    core: Core = openvino().Core()
    return core


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry, which keeps a number of the machine in the user's cache."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")
