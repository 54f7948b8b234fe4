"""The page of the seed table, docs/seed-systems.md, and its bars, from measured results."""

import statistics
from collections.abc import Iterator
from typing import Any, TypedDict

from tasks.metrics import wilson_interval

AUTHORS_STATE = {
    "s0a": "a quick baseline",
    "s0b": "the number of layers is a hyper-parameter",
    "s0c": "more variability, less overfitting",
    "s1": "often over 95 %",
    "s2": "about 94 %",
    "s3": "quite high",
    "s4": "stage 1 85-90 %, stage 2 92-96 %; 10-30 min on a GPU, 1-3 h on a CPU",
}
ACCURACY_BARS = {"s0a": 0.95, "s0b": 0.95, "s0c": 0.95, "s1": 0.95, "s2": 0.94, "s3": 0.95}
S4_BARS = {"stage1": 0.90, "stage2": 0.96}

INTRODUCTION = """\
# The seed systems

Five public guides and projects train the same kind of model by hand. Each recipe is a preset of Pawline
(`presets/`), and a plain Keras program (`benchmarks/reference.py`) that a practitioner would write. Both ran on the
same photos, in the same split, from the same ImageNet weights; `make seed-table` measures this page anew.
"""
COLUMNS = """\
| preset | recipe | photos, train + val | its author states \
| Pawline, accuracy | stage 1 → 2 | time | plain Keras, accuracy | stage 1 → 2 | time | times as fast |
|---|---|---|---|---|---|---|---|---|---|---|"""
READING = """\
Accuracy is that of the validation photos, the mean over the seeds, and in brackets its 95 % interval (Wilson). The
seeds share the photos, so the interval counts each photo once. Below it stands each seed by itself. Time is the median
over the seeds of whole runs. Pawline's begins with a fresh clone and the archive, nothing in DVC's cache, and ends with
`dvc repro fine_tune`; the check of every photo and the start of a process a stage are in it. The plain program's begins
with the start of its process on unpacked photos and ends with the saved model. The weights are on disk before either,
and the two take turns.
"""
NOTES = """\
## What differs

- Photos: Pawline quarantines damaged files, duplicates and training photos that look like an evaluation photo, and
  keeps near-duplicates in one split. The plain program is given the same list, so it gains from that too.{unreadable}
- Data: {train} training photos{s2_train} where the authors of S1, S3 and S4 have 18,610 (80 % of 23,262), and thus
  fewer steps an epoch. S2's author has 694, and scales to 0..1 for another copy of the backbone.
- The epoch that counts: Pawline keeps the best one on the validation photos, and stage 1 if stage 2 is not better,
  which flatters these figures a little; the plain program has its last. By their last epochs, Pawline has {last}.
- Batches: S2's author leaves out the last, smaller batch of an epoch (21 steps of 22), and S1's shuffles within 1,000
  photos at a time; here both programs train on every photo in an order drawn from all.
- Stage 2: Pawline freezes every BatchNormalization layer (keras-team/keras issue 20285); the plain program does not.
- The head: Pawline's output layer starts at zero, the plain program's as Keras draws it.
- Images: Pawline turns photos upright by their EXIF orientation and resizes once, with antialiasing; the plain
  program does neither, and decodes anew each epoch. Pawline's augmented views are drawn once, as many as
  `features.views`; the plain program draws in each step.
"""


class Side(TypedDict):
    """One run of one side. Accuracies are those of the validation photos.

    `stage1` and `stage2` (None without one) are the accuracies a stage ends with, `chosen` that of the resulting
    model, `last_epoch` that after the last epoch of the last stage; `train` and `val` count photos.
    """

    train: int
    val: int
    stage1: float
    stage2: float | None
    chosen: float
    last_epoch: float
    seconds: float


class Run(TypedDict):
    """Both sides with one seed."""

    seed: int
    pawline: Side
    plain: Side


class Row(TypedDict):
    """A preset's runs, with its recipe in words and the machine in words."""

    recipe: str
    machine: str
    runs: list[Run]


Results = dict[str, Row]  # by preset, s0a to s4


def describe(params: dict[str, Any]) -> str:
    """Say a recipe in a few words, from its parameters."""
    head, tail = params["train_head"], params["fine_tune"]
    layers = [f"Dense({units}, {head['activation']})" for units in head["hidden_units"]]
    units = 2 if head["output"] == "softmax" else 1
    layers.append(f"Dropout({head['dropout']:g})" if head["dropout"] else "")
    layers.append(f"Dense({units}, {head['output']})")
    parts = [f"{params['image']['size_px']} px", _describe_augmentation(params["features"]["augment"])]
    parts += ["GAP, " + ", ".join(filter(None, layers)), _describe_training(head)]
    if tail["unfrozen_layers"]:
        parts.append(f"then the last {tail['unfrozen_layers']} layers, {_describe_training(tail)}")
    return "; ".join(filter(None, parts))


def _describe_augmentation(augment: dict[str, Any]) -> str:
    words = {"rotation_degrees": "rotation ±{:g}°", "shift": "shift {:g}", "shear_degrees": "shear {:g}°"}
    words |= {"zoom": "zoom {:g}", "contrast": "contrast {:g}"}
    parts = ["flip"] if augment["flip"] else []
    return ", ".join(parts + [word.format(augment[key]) for key, word in words.items() if augment[key]])


def _describe_training(params: dict[str, Any]) -> str:
    names = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop"}
    stop = f", early stopping (patience {params['stop_patience']})" if params["stop_patience"] else ""
    rate = f"{params['learning_rate']:g}"
    return f"{names[params['optimizer']]} {rate}, {params['epochs']} epochs of batches of {params['batch_size']}{stop}"


def mean(sides: list[Side], key: str) -> float:
    """Return the mean of an accuracy over the seeds."""
    return statistics.fmean(side[key] for side in sides)  # type: ignore[literal-required]


def interval(sides: list[Side]) -> tuple[float, float]:
    """Return the 95 % interval of the mean accuracy, each photo counted once: the seeds share the photos."""
    photos = sides[0]["val"]
    return wilson_interval(round(mean(sides, "chosen") * photos), photos)


def seconds(sides: list[Side]) -> float:
    """Return the median time over the seeds."""
    return statistics.median(side["seconds"] for side in sides)


def sides_of(row: Row) -> tuple[list[Side], list[Side]]:
    """Return Pawline's runs and the plain program's."""
    return [run["pawline"] for run in row["runs"]], [run["plain"] for run in row["runs"]]


def render(results: Results) -> str:
    """Return the page."""
    rows = dict(sorted(results.items()))
    return "\n".join(
        [
            INTRODUCTION,
            _machines(rows),
            COLUMNS,
            *(_table_row(preset, row) for preset, row in rows.items()),
            "",
            READING,
            _notes(rows),
        ]
    )


def _machines(rows: Results) -> str:
    presets: dict[str, list[str]] = {}
    for preset, row in rows.items():
        presets.setdefault(row["machine"], []).append(preset)
    lines = [f"Measured on {machine}: {', '.join(names)}.\n" for machine, names in presets.items()]
    return "\n".join(lines) if len(lines) > 1 else f"Measured on {next(iter(presets))}.\n"


def _table_row(preset: str, row: Row) -> str:
    pawline, plain = sides_of(row)
    faster = seconds(plain) / seconds(pawline)
    photos = f"{pawline[0]['train']:,} + {pawline[0]['val']:,}"
    cells = [preset, row["recipe"], photos, AUTHORS_STATE[preset], *_cells(pawline), *_cells(plain), f"{faster:.2f}"]
    return f"| {' | '.join(cells)} |"


def _cells(sides: list[Side]) -> list[str]:
    low, high = interval(sides)
    each = ", ".join(_percent(side["chosen"]) for side in sides)
    accuracy = f"{_percent(mean(sides, 'chosen'))} % ({_percent(low)}-{_percent(high)})<br>{each}"
    stages = _percent(mean(sides, "stage1"))
    if sides[0]["stage2"] is not None:
        stages += f" → {_percent(mean(sides, 'stage2'))}"
    return [accuracy, stages, f"{seconds(sides):.0f} s"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _notes(rows: Results) -> str:
    sides = {preset: sides_of(row) for preset, row in rows.items()}
    last = ", ".join(f"{preset} {_percent(mean(pawline, 'last_epoch'))} %" for preset, (pawline, _) in sides.items())
    left_out = {
        preset: pawline[0]["train"] + pawline[0]["val"] - plain[0]["train"] - plain[0]["val"]
        for preset, (pawline, plain) in sides.items()
    }
    named = ", ".join(f"{preset} {count}" for preset, count in left_out.items() if count)
    unreadable = f" Photos that TensorFlow cannot read are left out of it: {named}." if named else ""
    cats_and_dogs = [pawline[0]["train"] for preset, (pawline, _) in sides.items() if preset != "s2"]
    train = f"{min(cats_and_dogs):,}" if cats_and_dogs else "no"
    s2_train = f" ({sides['s2'][0][0]['train']:,} in s2)" if "s2" in sides else ""
    return NOTES.format(unreadable=unreadable, train=train, s2_train=s2_train, last=last)


def bars(results: Results) -> Iterator[tuple[bool, str]]:
    """Yield what each preset must reach, and whether it does."""
    for preset, row in sorted(results.items()):
        pawline, plain = sides_of(row)
        if preset in ACCURACY_BARS:
            yield _bar(f"{preset} accuracy", mean(pawline, "chosen"), ACCURACY_BARS[preset])
        if preset == "s4":
            for stage, bar in S4_BARS.items():
                yield _bar(f"{preset} {stage}", mean(pawline, stage), bar)
            yield _bar(f"{preset} stage2 against stage1", mean(pawline, "stage2"), mean(pawline, "stage1"))
        least = interval(plain)[0]
        yield _bar(f"{preset} accuracy against the interval of plain Keras", mean(pawline, "chosen"), least)
        took, allowed = seconds(pawline), seconds(plain)
        yield took <= allowed, f"{preset} time: {took:.1f} s, plain Keras {allowed:.1f} s"


def _bar(what: str, value: float, least: float) -> tuple[bool, str]:
    return value >= least, f"{what}: {value:.4f}, at least {least:.4f}"
