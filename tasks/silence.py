"""Libraries that write to the terminal from C++, past Python's logging, made silent."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STANDARD_STREAMS = (1, 2)


@contextmanager
def silence() -> Iterator[None]:
    """Set standard output and standard error aside for the block; if it fails, what was written comes out after all."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in STANDARD_STREAMS]
    with tempfile.TemporaryFile() as said:
        for stream in STANDARD_STREAMS:
            os.dup2(said.fileno(), stream)
        try:
            yield
        except Exception:
            said.seek(0)
            Path("/dev/fd", str(kept[1])).write_bytes(said.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in zip(STANDARD_STREAMS, kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
