"""What decides the numbers besides data, parameters and code: written beside what training makes, for the lineage.

No time, host or path: the same machine gives the same file. A change of the environment reruns nothing by itself.
"""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from tasks import stage
from tasks.parallel import available_processors

FILE_NAME = "environment.json"
# Libraries that decode, compute or store; one of the two TensorFlows is installed.
PACKAGES = (
    "h5py",
    "keras",
    "numpy",
    "opencv-python-headless",
    "openvino",
    "pillow",
    "pyarrow",
    "scipy",
    "tensorflow",
    "tensorflow-cpu",
)
# Instruction sets by which kernels are chosen, as /proc/cpuinfo calls them on x86 and ARM.
FEATURES = re.compile(r"sse4_[12]|avx\w*|fma|f16c|amx_\w+|asimd\w*|sve\w*|bf16|i8mm")


def describe_environment() -> dict[str, Any]:
    """Return Python, machine, instruction sets, threads within an operation, and the versions of what computes."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor_features": _processor_features(),
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", available_processors())),
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of what decodes, computes or stores."""
    return {name: version for name in PACKAGES if (version := version_of(name)) is not None}


def write_environment(folder: Path) -> None:
    """Write `environment.json` into a stage's output folder."""
    stage.write_json(describe_environment(), folder / FILE_NAME)


def version_of(package: str) -> str | None:
    """Return a package's version; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor_features() -> list[str]:
    """Return the instruction sets that Linux lists; elsewhere none are known."""
    listing = Path("/proc/cpuinfo")
    if not listing.exists():
        return []
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", listing.read_text(encoding="utf-8"), re.MULTILINE)
    return sorted({word for line in lines for word in line.split() if FEATURES.fullmatch(word)})
