"""Commands typed in the tests' own process, where starting another is not the point."""

import shlex
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from flows.cli import main


def type_here(command: str) -> tuple[int, str]:
    """Type a command of `pawline`, without that word, in the current folder; return its exit code and the screen."""
    screen, handler = StringIO(), signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(screen), redirect_stderr(screen):
        patch.setattr(sys, "argv", ["pawline", *shlex.split(command)])
        with pytest.raises(SystemExit) as ended:
            main()
    signal.signal(signal.SIGTERM, handler)
    assert isinstance(ended.value.code, int | None)
    return ended.value.code or 0, screen.getvalue()
