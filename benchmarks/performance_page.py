"""docs/performance.md, from the figures that the comparisons kept.

    python -m benchmarks.performance_page                    docs/performance.json to docs/performance.md

A comparison that was not run is not on the page. What follows the line `<!-- by hand -->` (what was tried, and did it
pay) is written by hand, and kept as it is.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import commands, growth, new_photos, rounds, where
from benchmarks.rounds import Result

INTRODUCTION = """\
# Performance

Each row is a command in `benchmarks/` that runs both sides on the same photos in the same run, in turns; `make
performance` runs them all (hours) and writes this page. Times are medians of the rounds; how many times as fast is the
median of the rounds' own ratios. A bar that is not reached says so. On a processor with bfloat16, what trains stage 2
here multiplies in it (docs/architecture.md); plain Keras computes in float32.
"""
COMPARISONS = """\
| what | Pawline | against | | times as fast | bar | rounds |
|---|---|---|---|---|---|---|"""
GROWTH = """\
## Time and memory of each stage, by the number of photos

Each stage by itself, its own command in a fresh clone without DVC, on photos of original size repeated with changed
bytes; two epochs of stage 1, one of stage 2, and only Keras's format exported. Memory is the most that the stage's
processes had together, files mapped into memory left out. The exponent is the slope of time over photos in logarithms:
1 is linear, less is what starting up weighs.
"""
DISK = """\
## Disk

Bytes beside the photos, as a multiple of theirs: of all outputs in the workspace, and of what DVC's cache keeps.
"""
TRADE = """\
To have less: `dvc config cache.type hardlink` keeps one copy of what workspace and cache share (outputs are then
read-only); `features.views: 1` stores a third; `fine_tune.unfrozen_layers: 0` stores no boundary tensors;
`image.size_px: 160` halves TFRecords and boundary tensors; `pawline gc --drop-experiments` frees what only experiments
need.
"""
BY_HAND = "<!-- by hand -->\n"
LIMITS = """\
## How near the processor's limit

Operations are those of the convolutions, a multiplication and an addition each; the peak is that of large matrix
products on this machine. In bfloat16 the first 42 % of the layers stay float32 (docs/architecture.md), and so does
their share of the limit.
"""
WHERE = """\
## Where the time of each stage goes

What the main process was doing a hundred times a second (`benchmarks/where.py`; with `--flame-graphs` it draws a page
for each stage). `map_processes` waits for worker processes. The disk alone: the bytes of the stage's inputs and outputs
at the rates of this machine's disk.
"""
NEW_PHOTOS = """\
## What new photos cost

A run on many photos of original size, then one on a few more (`benchmarks/new_photos.py`): each stage by itself,
without DVC, imports included. docs/architecture.md says what the second run takes over.
"""
STARTING = """\
## What it costs to start a command

`pawline NAME --help` in seconds, imports included; `python` is Python with nothing to do.
"""


def render(figures: Mapping[str, Any], page: str) -> str:
    """Return the page anew; what was written by hand stays."""
    comparisons: dict[str, Result] = {key: value for key, value in figures.items() if "ours" in value}
    parts = [INTRODUCTION, f"{_machine(figures)}\n"]
    if comparisons:
        parts.append("\n".join([COMPARISONS, *map(_row, comparisons.values())]) + "\n")
        parts.append("\n".join(_notes(comparisons)) + "\n")
    if growth.KEY in figures:
        parts += _growth(figures[growth.KEY])
    grown = [figures[key] for key in new_photos.KEYS.values() if key in figures]
    if grown:
        parts.append(NEW_PHOTOS)
        parts += ["\n".join(_new_photos(found)) + "\n" for found in grown]
    if where.KEY in figures:
        parts.append(WHERE)
        parts.append("\n".join(_where(figures[where.KEY])) + "\n")
    if commands.KEY in figures:
        parts.append(STARTING)
        parts.append(_starting(figures[commands.KEY]["seconds"]) + "\n")
    if "limits" in figures:
        parts.append(LIMITS)
        parts.append("\n".join(_limits(figures["limits"])) + "\n")
    return "\n".join([*parts, BY_HAND + page.partition(BY_HAND)[2]])


def _machine(figures: Mapping[str, Any]) -> str:
    machines = sorted({value["machine"] for value in figures.values()})
    return "Machine: " + "; ".join(machines) + "."


def _row(result: Result) -> str:
    times, bar = rounds.times_as_fast(result), result["bar"]
    verdict = "" if bar is None else f"{bar:g}" if times >= bar else f"{bar:g}, **missed**"
    ours, theirs = (_figure(result, seconds) for seconds in (result["ours"], result["theirs"]))
    cells = (result["what"], ours, result["against"], theirs, f"{times:.2f}", verdict, str(len(result["ours"])))
    return f"| {' | '.join(cells)} |"


def _figure(result: Result, seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median:.1f} s" if result["images"] is None else f"{result['images'] / median:,.0f}/s"


def _notes(comparisons: Mapping[str, Result]) -> Iterator[str]:
    for result in comparisons.values():
        for note in result["notes"]:
            yield f"- {result['what']}, against {result['against']}: {note}"


def _growth(found: growth.Growth) -> Iterator[str]:
    counts = sorted(found["sizes"], key=int)
    sizes = [found["sizes"][count] for count in counts]
    header = " / ".join(f"{int(count):,}" for count in counts)
    lines = [f"| stage | seconds at {header} | exponent | MB of memory at {header} | growth |", "|---|---|---|---|---|"]
    for name in sizes[-1]["stages"]:
        usages = [size["stages"][name] for size in sizes]
        seconds = " / ".join(f"{usage['seconds']:.1f}" for usage in usages)
        memory = " / ".join(f"{usage['memory'] / 1e6:,.0f}" for usage in usages)
        trend = growth.trend(found, name)
        exponent, more = trend["exponent"], trend["memory_growth"]
        shown = ["" if exponent is None else f"{exponent:.2f}", "" if more is None else f"{more:+.0%}"]
        lines.append(f"| {name} | {seconds} | {shown[0]} | {memory} | {shown[1]} |")
    yield GROWTH
    yield "\n".join(lines) + "\n"
    failures = growth.failures(found)
    if failures:
        yield "Not reached:\n\n" + "\n".join(f"- {line}" for line in failures) + "\n"
    yield DISK
    rows = [
        f"| {int(count):,} | {' | '.join(f'{ratio:.1f}' for ratio in growth.times_the_photos(size))} |"
        for count, size in zip(counts, sizes, strict=True)
    ]
    yield "\n".join(["| photos | outputs | DVC's cache |", "|---|---|---|", *rows]) + "\n"
    yield TRADE


def _new_photos(found: new_photos.NewPhotos) -> Iterator[str]:
    yield f"| stage | {found['images']:,} photos | {found['more']:,} more, {found['where']} them |"
    yield "|---|---|---|"
    for name in new_photos.STAGES:
        yield f"| {name} | {found['first'][name]:.1f} s | {found['second'][name]:.1f} s |"
    share, most = new_photos.share(found), new_photos.MOST
    verdict = f"at most {most:.0%}" if share <= most else f"at most {most:.0%}, **missed**"
    yield ""
    yield f"{', '.join(new_photos.JUDGED)}: {share:.1%} of the first run's time (bar: {verdict})."


def _where(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"The disk writes {found['disk']['write'] / 1e6:,.0f} MB/s and reads {found['disk']['read'] / 1e6:,.0f} MB/s."
    yield ""
    yield "| stage | seconds | the disk alone | what its main process was doing |"
    yield "|---|---|---|---|"
    for name, look in found["stages"].items():
        disk = look["read_bytes"] / found["disk"]["read"] + look["written_bytes"] / found["disk"]["write"]
        yield f"| {name} | {look['seconds']:.1f} | {disk:.2f} | {where.describe_shares(look['shares'])} |"


def _starting(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {took:.2f}" for name, took in seconds.items()) + "."


def _limits(limits: Mapping[str, Any]) -> Iterator[str]:
    peaks = ", ".join(f"{name} {peak / 1e9:,.0f}" for name, peak in limits["peaks"].items())
    yield f"Peak, in billions of operations a second: {peaks}."
    yield ""
    yield "| part | million operations an image | ms at the peak | ms measured | share |"
    yield "|---|---|---|---|---|"
    for part in limits["parts"]:
        share = part["limit_ms"] / part["measured_ms"]
        yield (
            f"| {part['what']} | {part['operations'] / 1e6:,.0f} | {part['limit_ms']:.2f} | {part['measured_ms']:.2f} "
            f"| {share:.0%} |"
        )


def main(argv: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/performance.json"), metavar="FILE")
    parser.add_argument("--page-out", type=Path, default=Path("docs/performance.md"), metavar="FILE")
    args = parser.parse_args(argv)
    if not args.results.exists():
        parser.exit(1, f"error: there is no {args.results}: run a comparison with --results {args.results} first\n")
    figures = json.loads(args.results.read_text(encoding="utf-8"))
    page = args.page_out.read_text(encoding="utf-8") if args.page_out.exists() else ""
    args.page_out.write_text(render(figures, page), encoding="utf-8")
    print(f"the page is {args.page_out}")


if __name__ == "__main__":
    main()
