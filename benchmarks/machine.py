"""The machine that figures were taken on, in words."""

import importlib.metadata
import re
from functools import cache
from pathlib import Path

from tasks.parallel import available_processors

COMPUTING = ("TensorFlow", "Keras", "OpenVINO")


@cache  # it looks at every package that is installed
def describe_machine() -> str:
    """Return cores, processor and the versions of what computes."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    bfloat16 = " with bfloat16" if re.search(r"\bavx512_bf16\b|\bbf16\b", cpuinfo) else ""
    processor = found[1].strip() + bfloat16 if found else "unknown processor"
    packages = importlib.metadata.packages_distributions()
    versions = [f"{name} {importlib.metadata.version(packages[name.lower()][0])}" for name in COMPUTING]
    return ", ".join([f"{available_processors()} cores", processor, *versions])
