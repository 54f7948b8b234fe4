"""TensorFlow and Keras, imported without their log noise and set up to give the same bytes every time.

The import takes seconds: stage modules import this inside the functions that need it.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tasks.parallel import available_processors

# TensorFlow and Keras ship no types; these names say at least what is meant.
Model: TypeAlias = Any
Tensor: TypeAlias = Any


# Keras imports them where it finds them, for plots, data frames and wrappers: more than a second.
NOT_NEEDED = ("matplotlib", "pandas", "sklearn")


@contextmanager
def _hidden(names: Iterable[str]) -> Iterator[None]:
    """Make the import of some packages fail, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # None is what the import system takes for absent
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _import_quietly() -> tuple[Any, Any]:
    """Import with file descriptor 2 set aside: the C++ side logs before any Python setting can stop it."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Sums are split by thread, so the thread count is part of a result's identity.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(available_processors()))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    sys.stderr.flush()
    gc.disable()  # the import makes millions of objects, none of which is garbage: a second of looking for it
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            with _hidden(NOT_NEEDED):
                import keras
                import tensorflow
            from absl import logging as absl_logging
        except Exception:
            said.seek(0)
            Path("/dev/fd", str(stderr)).write_bytes(said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            gc.freeze()
            gc.enable()
    tensorflow.get_logger().setLevel("ERROR")
    absl_logging.set_verbosity(absl_logging.ERROR)
    tensorflow.config.experimental.enable_op_determinism()
    return tensorflow, keras


tf, keras = _import_quietly()
