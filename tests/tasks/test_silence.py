"""What C++ writes to the terminal does not arrive, unless something fails."""

import os

import pytest

from tasks.silence import silence


def test_nothing_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with silence():
        os.write(1, b"noise")
        os.write(2, b"noise")
    os.write(1, b"after")
    assert tuple(capfd.readouterr()) == ("after", "")


def _fail() -> None:
    os.write(2, b"why it failed")
    raise ValueError("failed")


def test_a_failure_is(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="failed"), silence():
        _fail()
    assert tuple(capfd.readouterr()) == ("", "why it failed")
