"""The tables and the picture of docs/scale.md, from what was measured and what the simulator makes of it.

    python -m benchmarks.scale_page            docs/performance.json to docs/scale.md and docs/scale.svg: three minutes

Only what stands between the two marks in docs/scale.md is written; the rest of the page is written by hand.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from benchmarks import growth, leading, simulate
from benchmarks.simulate import STAGES, Checked, duration, error_of
from benchmarks.simulator import Outcome, Place, Trouble
from benchmarks.simulator import simulate as play
from benchmarks.stage_costs import Costs, work_of
from tasks import stage
from tasks.progress import Progress
from tasks.stage import PawlineError

BEGIN, END = "<!-- figures: python -m benchmarks.scale_page -->\n", "<!-- end of figures -->\n"
CORES = 8
PLACES = [(100_000, 1), (100_000, 4), *((10_000_000, machines) for machines in (1, 4, 16, 64))]
# A worker dies once in a hundred hours, is missed after five minutes and back after one; one chunk in a hundred takes
# five times as long.
TROUBLE = Trouble(deaths=0.01, detected=simulate.WORKER_TTL, restarted=60.0, stragglers=0.01, times=5.0)
CHECKED = """\
| stage | workers | measured | predicted | |
|---|---|---|---|---|"""
A_PHOTO = """\
| stage | ms of a processor a photo | ms of the client a photo, while chunks are at work | ms of it before and after |
|---|---|---|---|"""
HOURS = """\
| photos | machines | {stages} |
|---|---|{lines}|"""
LEADING = """\
| part of the leading process | bytes a photo | µs a photo |
|---|---|---|"""
STORED = """\
| output of | bytes a photo | 10^5 photos | 10^7 | 10^9 |
|---|---|---|---|---|"""
ALONE = """\
| stage | ms a photo | 10^5 photos | 10^7 | 10^9 |
|---|---|---|---|---|"""
SIZES = (10**5, 10**7, 10**9)
STORING = ("ingest", "validate", "preprocess", "features")
ONE_PROCESS = {  # and what the figures are for
    "ingest": "",
    "train_head": ", 2 epochs",
    "fine_tune": ", 1 epoch",
    "evaluate": "",
    "label_errors": "",
    "probe": "",
    "export": ", Keras's format only",
}
Found = dict[tuple[int, int, str], tuple[Outcome, Outcome]]


def place_for(costs: Costs, machines: int) -> Place:
    """Fill machines of eight processors with workers."""
    on_a_machine = max(1, int(CORES / costs["processors"]))
    return Place(machines * on_a_machine, CORES, on_a_machine)


def simulate_all(stages: Mapping[str, Checked]) -> Found:
    """Simulate every size on all its machines, without trouble and with it."""
    found: Found = {}
    with Progress("simulate", total=len(PLACES) * len(stages), unit="runs") as progress:
        for photos, machines in PLACES:
            for name, checked in stages.items():
                work, place = work_of(checked["costs"], photos), place_for(checked["costs"], machines)
                found[photos, machines, name] = play(work, place), play(work, place, TROUBLE)
                progress.advance()
    return found


def figures(known: Mapping[str, Any], found: Found) -> str:
    """Return what stands between the marks."""
    stages: dict[str, Checked] = {name: known[simulate.KEY]["stages"][name] for name in STAGES}
    compared = list(_checked(stages))
    parts = [
        *(["\n".join([CHECKED, *compared])] if compared else []),
        "\n".join([A_PHOTO, *_a_photo(stages)]),
        "\n".join([LEADING, *_leading(known[leading.KEY])]),
        "\n".join([HOURS.format(stages=" | ".join(stages), lines="|".join("---" for _ in stages)), *_hours(found)]),
        "\n".join([ALONE, *_alone(known[growth.KEY])]),
        "\n".join([STORED, *_stored(known[growth.KEY])]),
    ]
    return "\n\n".join(parts) + "\n"


def _checked(stages: Mapping[str, Checked]) -> Iterator[str]:
    for name, checked in stages.items():
        for run in checked["runs"]:
            killed = "" if run["killed_at"] is None else f", one killed after {run['killed_at']:.1f} s"
            seconds = f"{run['measured']:.1f} s | {run['predicted']:.1f} s"
            yield f"| {name} | {run['workers']}{killed} | {seconds} | {error_of(run):+.0%} |"


def _a_photo(stages: Mapping[str, Checked]) -> Iterator[str]:
    for name, checked in stages.items():
        costs = checked["costs"]
        worker = sum(costs["chunks"]) * costs["processors"] / costs["photos"]
        client = costs["serial"] * len(costs["chunks"]) / costs["photos"]
        around = costs["start_a_photo"] + costs["end_a_photo"]
        yield f"| {name} | {worker * 1e3:.2f} | {client * 1e3:.3f} | {around * 1e3:.3f} |"


def _leading(found: leading.Leading) -> Iterator[str]:
    for name, part in found["parts"].items():
        yield f"| {name} | {part['bytes']:,.0f} | {part['seconds'] * 1e6:,.0f} |"


def _hours(found: Found) -> Iterator[str]:
    for photos, machines in PLACES:
        both = [outcomes for (*place, _), outcomes in found.items() if place == [photos, machines]]
        cells = [
            f"{duration(smooth.makespan)}; {duration(rough.makespan)}, {rough.used:.0%} used" for smooth, rough in both
        ]
        yield f"| {photos:,} | {machines} | {' | '.join(cells)} |"


def a_photo(found: growth.Growth, name: str, kind: Literal["seconds", "outputs"]) -> float:
    """Return what a photo more costs a stage, between the smallest and the largest size measured."""
    few, many = (choose(found["sizes"], key=int) for choose in (min, max))
    usages = [found["sizes"][count]["stages"][name][kind] for count in (few, many)]
    return (usages[1] - usages[0]) / (int(many) - int(few))


def _alone(found: growth.Growth) -> Iterator[str]:
    for name, what in ONE_PROCESS.items():
        seconds = a_photo(found, name, "seconds")
        times = " | ".join(duration(seconds * size) for size in SIZES)
        yield f"| {name}{what} | {seconds * 1e3:.2f} | {times} |"


def _stored(found: growth.Growth) -> Iterator[str]:
    total = 0.0
    for name in STORING:
        stored = a_photo(found, name, "outputs")
        total += stored
        yield _stored_row(name, stored)
    yield _stored_row("together", total)


def _stored_row(name: str, stored: float) -> str:
    sizes = " | ".join(f"{stored * size / 1e9:,.{1 if stored * size < 1e11 else 0}f} GB" for size in SIZES)
    return f"| {name} | {stored:,.0f} | {sizes} |"


def draw(found: Found, path: Path) -> None:
    """Draw the makespans of the largest size by the number of machines, both axes logarithmic."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    largest = max(photos for photos, _ in PLACES)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for _, _, name in found):
        points = [
            (machines, both) for (photos, machines, other), both in found.items() if (photos, other) == (largest, name)
        ]
        machines = [count for count, _ in points]
        [line] = axes.plot(machines, [rough.makespan / 3600 for _, (_, rough) in points], marker="o", label=name)
        smooth = [both[0].makespan / 3600 for _, both in points]
        axes.plot(machines, smooth, linestyle="--", linewidth=1, color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel=f"machines of {CORES} processors", ylabel="hours")
    axes.set_xticks(machines, [str(count) for count in machines])
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_title(f"{largest:,} photos (dashed: nothing goes wrong)", fontsize=10)
    axes.legend(frameon=False)
    with mpl.rc_context({"svg.hashsalt": "pawline"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main(argv: list[str] | None = None) -> None:
    """Write the tables and the picture."""
    parser = stage.parser(__doc__)
    stage.add_path(parser, "--results", "docs/performance.json", "what was measured")
    stage.add_path(parser, "--page", "docs/scale.md", "the page; its picture is beside it")
    args = parser.parse_args(argv)
    known = json.loads(args.results.read_text(encoding="utf-8")) if args.results.exists() else {}
    missing = [key for key in (simulate.KEY, leading.KEY, growth.KEY) if key not in known]
    if missing:
        raise PawlineError(f"{args.results} has no figures of {missing[0]}: run its command with --results first")
    page = args.page.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise PawlineError(f"{args.page} has no place for the figures: put {BEGIN.strip()} and {END.strip()} into it")
    found = simulate_all({name: known[simulate.KEY]["stages"][name] for name in STAGES})
    draw(found, args.page.with_suffix(".svg"))
    args.page.write_text(f"{before}{BEGIN}{figures(known, found)}{END}{after}", encoding="utf-8")
    print(f"the figures are in {args.page}")


if __name__ == "__main__":
    stage.run(main)
