"""Every stage of dvc.yaml, killed at random moments: the next run ends with the bytes of one that nobody disturbed.

Half of the moments are times, half are changes to the project's files (the stage dies before it makes one), and of both
every other one spares the stage's workers.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import FULL, Report, Tries
from tests.faults.results import Fault
from tests.faults.stage_children import Death, Ended
from tests.faults.stages import LIBRARIES, Stages, copy_finished, listing, outputs_of, remove_outputs
from tests.flows.conftest import processes_in
from tests.flows.served import wait_for
from tests.once import made_once
from tests.test_pipeline import STAGES

CHEAP = "source"  # no TensorFlow, and soon done
MOST_MISSES = 20  # moments at which a stage had ended already


@pytest.fixture(scope="module")
def stages(three_runs_made: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """A finished project of this module's own, and what runs its stages."""
    made = made_once(shared_folder / "finished_run", lambda folder: copy_finished(three_runs_made, folder))
    folder = tmp_path_factory.mktemp("death") / "project"
    shutil.copytree(made / "project", folder, symlinks=True)
    with Stages(folder, *(LIBRARIES if FULL else ())) as running:
        yield running


def deaths(chance: random.Random, undisturbed: Ended) -> Iterator[Death]:
    """Yield random moments of a stage's life."""
    while True:
        for alone in (False, True):
            yield Death(seconds=chance.uniform(0, undisturbed.seconds), alone=alone)
            yield Death(change=chance.randint(1, undisturbed.changes), alone=alone)


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_ends_with_the_same_bytes(
    name: str, stages: Stages, tries: Tries, chance: random.Random, report: Report
) -> None:
    if not FULL and name != CHEAP:
        pytest.skip("takes minutes: `make faults` runs it")
    folder = stages.folder
    expected, everything = outputs_of(folder, name), listing(folder)
    remove_outputs(folder, name, persistent=True)
    undisturbed = stages.run(name)
    assert outputs_of(folder, name) == expected, "a stage that runs like this writes what it writes under DVC"
    held, missed, wanted = 0, 0, tries(1, 20)
    killed: list[Death] = []
    for death in deaths(chance, undisturbed):
        remove_outputs(folder, name, persistent=len(killed) % 2 == 0)
        if stages.run(name, death).code == 0:
            missed += 1
            assert missed <= MOST_MISSES
            continue
        killed.append(death)
        stages.run(name)
        held += outputs_of(folder, name) == expected and listing(folder) == everything
        if len(killed) == wanted:
            break
    wait_for(60, lambda: processes_in(folder) == [])  # workers whose stage died end by themselves
    changes = sum(death.change is not None for death in killed)
    seen = f"{changes} times before it changed a file, else at a random time of its {undisturbed.seconds:.1f} s"
    report(Fault.DEATH, f"`{name}` killed", tries=wanted, held=held, seen=seen)
