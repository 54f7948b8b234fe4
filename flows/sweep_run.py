"""One sweep, from its settings to its table: what all share, the queue, the results."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows import dvc_queue, experiments, presets, sweep
from flows.dvc_queue import Count
from tasks.stage import PawlineError

REPORTS_DIR = Path("reports/sweeps")
SECONDS_BETWEEN_LINES = 10.0
MOST_METRICS = 6  # columns of the table on the terminal; the CSV has all
WIDTH = 160  # characters of a table that does not go to a terminal

logger = logging.getLogger(__name__)


def run_sweep(
    grid: Mapping[str, Sequence[str]],
    base: presets.Settings,
    *,
    to: str | None,
    jobs: int,
    name: str | None,
    again: list[str],
) -> int:
    """Run every combination as a DVC experiment, and show, write and draw what came out.

    Args:
        grid: The swept keys, each with its values as `sweep.parse_grid` returns them.
        base: Settings that all experiments have.
        to: The last stage to run, if it is not to be the default one.
        jobs: Experiments at a time.
        name: What the experiments' names begin with.
        again: The command that runs the pipeline with `base`; the best settings are added to it.

    Returns:
        How many experiments failed.
    """
    base = {key: value for key, value in base.items() if key not in grid}
    combinations = sweep.combine(grid, base)
    plan = sweep.make_plan(list(grid), to)
    combinations = sweep.share_work(combinations, plan)
    with experiments.only_command():
        prefix = _choose_prefix(name)
        named = {f"{prefix}-{number}": combination for number, combination in enumerate(combinations, start=1)}
        common = _prepare(plan, base)
        overrides = {
            experiment: sweep.hydra_overrides(plan, common | sweep.settings_of(combination, base))
            for experiment, combination in named.items()
        }
        logger.info("%d experiments, each of %s, %d at a time", len(named), ", ".join(plan.stages), jobs)
        with _progress(len(named)) as show:
            failures = dvc_queue.run_experiments(overrides, plan.stages, jobs=jobs, show=show)
    rows = sweep.read_rows({key: value for key, value in named.items() if key not in failures}, plan.metrics)
    _show_failures(failures, named)
    if rows:
        _show_table(rows)
        _report(rows, prefix, again)
    return len(failures)


def _choose_prefix(name: str | None) -> str:
    if not experiments.are_possible():
        raise PawlineError("a sweep makes DVC experiments: they need a git repository with a commit, and there is none")
    if name is None:
        return experiments.free_prefix("sweep")
    experiments.check_name(name)
    if taken := [other for other in experiments.experiment_names() if other.rpartition("-")[0] == name]:
        raise PawlineError(f"--name {name}: there are experiments of that name, such as {min(taken)}; choose another")
    return name


def _prepare(plan: sweep.Plan, base: presets.Settings) -> presets.Settings:
    """Bring what all experiments read up to date, and return the settings that params.yaml then does not have.

    Only a setting that the shared stages read makes it necessary to write the settings into the workspace.
    """
    changes = presets.changes(base)
    if changes and sweep.is_read_before(plan, changes):
        logger.info("the settings are in params.yaml now: what the experiments share is made with them, in this folder")
        presets.write_settings(changes)
        changes = {}
    sweep.bring_up_to_date(plan.shared)
    return changes


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Count], None]]:
    """Show how far the queue is: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total)
        return
    columns = [TextColumn("sweep"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, completed=count.done + count.failed, description=_in_words(count))


def _lines(total: int) -> Callable[[Count], None]:
    last_line = time.monotonic()

    def show(count: Count) -> None:
        nonlocal last_line
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            sys.stderr.write(f"sweep: {count.done + count.failed}/{total} ({_in_words(count)})\n")
            sys.stderr.flush()

    return show


def _in_words(count: Count) -> str:
    return f"{count.done} done, {count.failed} failed, {count.running} running"


def _show_failures(failures: Mapping[str, str], named: Mapping[str, sweep.Combination]) -> None:
    for experiment, reason in failures.items():
        sys.stderr.write(f"{experiment} failed: {reason} (with {sweep.in_words(named[experiment])})\n")
    if failures:
        sys.stderr.write("error: not all experiments succeeded; `dvc queue logs NAME` shows what one said\n")


def _show_table(rows: Sequence[sweep.Row]) -> None:
    """Print the experiments, best first."""
    numbers = sweep.numeric_metrics(rows)
    metrics = list(dict.fromkeys([*sweep.rank_by(rows), *(name for name in numbers if "." not in name)]))[:MOST_METRICS]
    ranked = bool(sweep.rank_by(rows))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "experiment", *rows[0].combination):
        table.add_column(heading, overflow="fold")
    for heading in metrics:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        figures = [_shown(row.metrics.get(name)) for name in metrics]
        table.add_row("best" if ranked and row is rows[0] else "", row.name, *row.combination.values(), *figures)
    console = Console(markup=False, highlight=False)
    console = console if console.is_terminal else Console(markup=False, highlight=False, width=WIDTH)
    console.print(table)


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _report(rows: Sequence[sweep.Row], prefix: str, again: list[str]) -> None:
    """Write the table and the picture, and say how to go on."""
    REPORTS_DIR.mkdir(parents=True, exist_ok=True)
    sweep.write_csv(rows, REPORTS_DIR / f"{prefix}.csv")
    if not sweep.rank_by(rows):
        sys.stdout.write(f"in {REPORTS_DIR / prefix}.csv; nothing ranks them: these metrics have no accuracy or loss\n")
        return
    from flows.sweep_figure import draw_sweep  # Matplotlib takes a second to import

    draw_sweep(rows, f"{prefix}: {len(rows)} experiments", REPORTS_DIR / f"{prefix}.png")
    best = rows[0]
    settings = [part for key, text in best.combination.items() for part in ("--set", f"{key}={text}")]
    sys.stdout.write(
        f"in {REPORTS_DIR / prefix}.csv and .png; `dvc exp show` shows all, `dvc exp apply {best.name}` takes the best "
        f"over, or: {shlex.join([*again, *settings])}\n"
    )
