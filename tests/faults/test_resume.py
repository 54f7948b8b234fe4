"""features and both stages of training, killed after random steps: the resumed run ends with the same bytes.

The settings are such that a lost position shows: dropout, momentum, a learning rate that follows a schedule, a best
epoch that is not the last, and patience that ends the training.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.conftest import FULL, Report, Tries
from tests.faults.results import Fault
from tests.faults.stage_children import Death
from tests.faults.stages import LIBRARIES, Stages, copy_finished, listing, outputs_of, remove_outputs
from tests.once import made_once
from tests.test_pipeline import set_params

MOST_KILLS = 3  # of one run


class Case(NamedTuple):
    """A stage and the settings it is killed with."""

    stage: str
    settings: dict[str, Any]
    kept_in: str = ""  # the folder that has its summary


# So fast that most epochs make it worse.
WAVERING = {"epochs": 12, "batch_size": 8, "learning_rate": 0.3, "stop_patience": 4, "plateau_patience": 1}
CASES = {
    "features": Case("features", {}),
    "stage 1, cosine": Case(
        "train_head",
        {"epochs": 6, "batch_size": 8, "schedule": "cosine", "warmup_epochs": 1.5, "optimizer": "sgd", "dropout": 0.5},
        "models/stage1",
    ),
    "stage 1, plateau and patience": Case(
        "train_head", WAVERING | {"schedule": "plateau", "optimizer": "adamw", "dropout": 0.5}, "models/stage1"
    ),
    "stage 2, cosine": Case(
        "fine_tune",
        {"epochs": 4, "batch_size": 8, "schedule": "cosine", "warmup_epochs": 0.5, "learning_rate": 0.001},
        "models/stage2",
    ),
    "stage 2, plateau and patience": Case(
        "fine_tune", WAVERING | {"schedule": "plateau", "learning_rate": 0.02, "stop_patience": 3}, "models/stage2"
    ),
}


@pytest.fixture(scope="module")
def stages(three_runs_made: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """A finished project of this module's own, and what runs its stages."""
    if not FULL:
        pytest.skip("takes minutes: `make faults` runs it")
    made = made_once(shared_folder / "finished_run", lambda folder: copy_finished(three_runs_made, folder))
    folder = tmp_path_factory.mktemp("resume") / "project"
    shutil.copytree(made / "project", folder, symlinks=True)
    with Stages(folder, *LIBRARIES) as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_resumed_it_ends_with_the_same_bytes(
    name: str, stages: Stages, tries: Tries, chance: random.Random, report: Report
) -> None:
    case, folder = CASES[name], stages.folder
    set_params(folder, {f"{case.stage}.{key}": value for key, value in case.settings.items()})
    remove_outputs(folder, case.stage, persistent=True)
    steps = stages.run(case.stage).steps
    expected, everything = outputs_of(folder, case.stage), listing(folder)
    what = of_training(folder / case.kept_in) if case.kept_in else f"{steps} steps"
    held, kills, carried_on, wanted = 0, 0, 0, tries(0, 10)
    for number in range(wanted):
        remove_outputs(folder, case.stage, persistent=True)
        for _ in range(chance.randint(1, MOST_KILLS)):
            death = Death(step=chance.randint(1, steps), alone=number % 2 == 0)
            if stages.run(case.stage, death).code == 0:  # fewer steps were left
                remove_outputs(folder, case.stage, persistent=True)
                continue
            kills += 1
        stages.run(case.stage)
        carried_on += "carrying on after epoch" in stages.said
        held += outputs_of(folder, case.stage) == expected and listing(folder) == everything
    seen = f"{kills} kills, each after a random step; {carried_on} of the runs took up a later epoch than the first"
    if not case.kept_in:
        seen = f"{kills} kills, each after a random step"
    assert kills
    report(Fault.RESUME, f"{name}: {what}", tries=wanted, held=held, seen=seen)


def test_stopped_after_any_step_of_a_small_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: Tries, chance: random.Random, report: Report
) -> None:
    """In this process, by an exception: nothing but the state file outlives either."""
    from tasks import training
    from tests.tasks import test_training as small
    from tests.tasks.conftest import changed

    for split, images in (("train", 30), ("val", 20)):
        small.write_split(tmp_path, split, images)
    splits = training.open_splits(tmp_path, "pooled")
    params = changed(small.PARAMS, **small.WAVERING, stop_patience=3, schedule="plateau", optimizer="rmsprop")
    whole, expected = small.run(splits, tmp_path / "whole", params)
    steps = len(expected.batches)
    wanted, held = tries(2, 50), 0
    for number in range(wanted):
        scratch = tmp_path / f"try{number}"
        with monkeypatch.context() as patch:
            _stop_after(chance.randint(1, steps), patch)
            with pytest.raises(KeyboardInterrupt):
                small.run(splits, scratch, params)
        resumed, history = small.run(splits, scratch, params)
        held += history == expected and small.as_bytes(resumed.get_weights()) == small.as_bytes(whole.get_weights())
    seen = f"{steps} steps in {len(expected.epochs)} epochs, ended by patience"
    report(Fault.RESUME, "a small head, stopped after a random step", tries=wanted, held=held, seen=seen)


def _stop_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    from tasks.progress import Progress

    advance, left = Progress.advance, [steps]

    def counted(self: Progress, count: int = 1) -> None:
        advance(self, count)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    patch.setattr(Progress, "advance", counted)


def of_training(folder: Path) -> str:
    """Say in short what was trained, after making sure that a lost position would show."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    rows = [line.split(",") for line in (folder / "epochs.csv").read_text(encoding="utf-8").splitlines()]
    rate = rows[0].index("learning_rate")
    rates = {row[rate] for row in rows[1:]}
    assert len(rates) > 1
    if summary["stopped"] == "patience":
        assert summary["best"]["epoch"] < summary["epochs"]
    return (
        f"{summary['epochs']} epochs, the best {summary['best']['epoch']}, {len(rates)} learning rates, "
        f"ended by {summary['stopped']}"
    )
