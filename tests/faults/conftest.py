"""How many tries a test of faults makes, and where it says what it found.

`make test` makes few; `make faults` sets PAWLINE_FAULTS to a folder for what is found, and all are made.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import results
from tests.faults.results import Fault, Found

FAULTS = "PAWLINE_FAULTS"
FULL = FAULTS in os.environ

Report = Callable[..., None]
Tries = Callable[[int, int], int]


@pytest.fixture
def tries() -> Tries:
    """Choose how often something is tried: `tries(few, all)`."""
    return lambda few, full: full if FULL else few


@pytest.fixture(scope="session")  # so that it comes before what a module makes for its tests
def whole_suite_only() -> None:
    """Skip what takes minutes, unless all is tried."""
    if not FULL:
        pytest.skip("takes minutes: `make faults` runs it")


@pytest.fixture
def chance() -> random.Random:
    """Random moments and places, the same in every run."""
    return random.Random(20_261_123)  # noqa: S311 - not a secret


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Say what was found: `report(Fault.DEATH, "what", tries=20, held=20, seen="")`."""

    def save(fault: Fault, what: str, *, tries: int, held: int, seen: str = "") -> None:
        if FULL:
            test = request.node.nodeid
            found = Found(fault=fault, what=what, tries=tries, held=held, seen=seen, test=test)
            results.save(found, Path(os.environ[FAULTS]))
        assert held == tries, f"{what}: {held} of {tries} held; {seen}"

    return save
