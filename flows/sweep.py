"""Sweeps: every combination of some settings as a DVC experiment, of which only the stages that read them run.

Nothing here knows a stage or a metric file by name: dvc.yaml says which stage reads which setting and who writes
metrics. Everything works on the project in the current folder.
"""

import csv
import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro

from flows import dvc_graph, presets
from flows.experiments import open_repo
from tasks.params import check_values
from tasks.params_file import read_values
from tasks.stage import PawlineError

MOST_COMBINATIONS = 500
Stage = Any  # dvc.stage.PipelineStage: DVC ships no types
Graph = Any  # networkx.DiGraph of stages; edges lead from a stage to what it depends on
Combination = dict[str, str]  # the swept keys, each with its value as it was typed

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What a sweep runs."""

    shared: list[str]  # stages brought up to date once, in the workspace: what the experiments' stages read
    stages: list[str]  # stages that run in every experiment, in order
    metrics: list[str]  # paths of the metric files of those stages, in their order
    path_keys: list[str]  # settings with a path that those stages may read
    keys: list[str]  # the swept keys, those that the latest stages read first


class Row(NamedTuple):
    """An experiment that was kept."""

    name: str
    combination: Combination
    metrics: dict[str, Any]  # by dotted key


def parse_grid(texts: Iterable[str], *, here: Path) -> dict[str, list[str]]:
    """Read `KEY=V1,V2,...` each; values are YAML and are split at commas outside of brackets and quotes.

    Args:
        texts: What was typed.
        here: Where the user stands, which relative paths start from.

    Raises:
        PawlineError: Values are missing, or given twice.
    """
    grid: dict[str, list[str]] = {}
    for text in texts:
        key, _, joined = text.partition("=")
        values = split_values(joined)
        if not key or "" in values:
            raise PawlineError(f"{text}: write KEY=V1,V2,..., such as train_head.dropout=0,0.2,0.4")
        parsed = [presets.parse_value(value, key) for value in values]
        if key in grid or any(value in parsed[:position] for position, value in enumerate(parsed)):
            raise PawlineError(f"{text}: a key or a value is there twice")
        grid[key] = [presets.relative_to_root(value, here) for value in values] if key in presets.PATH_KEYS else values
    return grid


def split_values(joined: str) -> list[str]:
    """Split at commas outside of brackets, braces and quotes: `[],[256,64]` are two values."""
    parts, depth, quote = [""], 0, ""
    for character in joined:
        if quote or character in "'\"":
            quote = "" if character == quote else quote or character
        depth += (character in "[{") - (character in "]}") if not quote else 0
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def combine(grid: Mapping[str, Sequence[str]], base: presets.Settings) -> list[Combination]:
    """Return every combination, the last key changing fastest, after a check of each.

    Args:
        grid: The swept keys and their values.
        base: Settings that all have in common.

    Raises:
        PawlineError: A combination is impossible, or there are too many.
    """
    count = math.prod(map(len, grid.values()))
    if count > MOST_COMBINATIONS:
        raise PawlineError(f"{count} combinations are more than {MOST_COMBINATIONS}: sweep fewer values")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    values = presets.apply_settings(read_values(presets.PARAMS_PATH), base)
    for combination in combinations:
        try:
            check_values(presets.apply_settings(values, settings_of(combination, base)), presets.PARAMS_PATH)
        except PawlineError as error:
            raise PawlineError(f"{error} (with {in_words(combination)})") from None
    return combinations


def share_work(combinations: Sequence[Combination], plan: Plan) -> list[Combination]:
    """Order combinations so that those with the same early stages are not done side by side.

    What an experiment's early stages made is there for the next one that needs the same, but not for one that begins
    at the same time: the keys that the earliest stages read change fastest.
    """
    places: dict[str, dict[str, int]] = {}
    for combination in combinations:
        for key, text in combination.items():
            known = places.setdefault(key, {})
            known.setdefault(text, len(known))
    return sorted(combinations, key=lambda combination: [places[key][combination[key]] for key in plan.keys])


def settings_of(combination: Combination, base: presets.Settings) -> presets.Settings:
    """Return a combination's values, and the `data.source` which its path needs if `base` has none."""
    values = {key: presets.parse_value(text, key) for key, text in combination.items()}
    source = {"data.source": base["data.source"]} if "data.source" in base else {}
    return presets.combine(None, source | values)


def in_words(combination: Combination) -> str:
    """Return a combination as it is typed."""
    return " ".join(f"{key}={text}" for key, text in combination.items())


def make_plan(keys: Sequence[str], target: str | None) -> Plan:
    """Work out which stages must run in every experiment, and which only once, before.

    Args:
        keys: The swept keys.
        target: The last stage to run. Default: the first with metrics that needs the last one that reads a swept key
            and is needed for any metrics.

    Raises:
        PawlineError: No stage reads a key, the target is no stage or reads none, or nothing has metrics.
    """
    with open_repo() as repo:
        graph = get_active_graph(repo.index.graph)
        order = plan_repro(graph)
        touched = [stage for stage in order if any(_reads(stage, key) for key in keys)]
        for key in keys:
            if not any(_reads(stage, key) for stage in touched):
                raise PawlineError(f"no stage of dvc.yaml reads {key}")
        metrics = {stage: _metric_paths(repo, stage) for stage in order}
        last = _find(target, order) if target else _default_target(graph, order, touched, metrics)
        stages = _between(graph, touched, last)
        direct = {source for stage in stages for source in graph.successors(stage)}
        names = [stage.addressing for stage in stages]
        if not stages:
            raise PawlineError(f"--to {last.addressing}: no stage up to it reads {', '.join(keys)}")
        if not any(metrics[stage] for stage in stages):
            having = [stage.addressing for stage in order if metrics[stage]]
            raise PawlineError(f"{last.addressing} has no metrics to compare: use --to ({', '.join(having)} have)")
        shared = [stage.addressing for stage in order if stage in direct and stage not in stages]
        paths = [key for key in presets.PATH_KEYS if any(s.always_changed or _reads(s, key) for s in stages)]
        late_first = sorted(keys, key=lambda key: -next(n for n, stage in enumerate(order) if _reads(stage, key)))
        return Plan(shared, names, [path for stage in stages for path in metrics[stage]], paths, late_first)


def hydra_overrides(plan: Plan, settings: presets.Settings) -> list[str]:
    """Return the settings of one experiment as DVC takes them.

    A relative path would lead nowhere from a temporary workspace: one that the experiment's stages read is made whole.
    """
    values = presets.flatten(presets.apply_settings(read_values(presets.PARAMS_PATH), settings))
    paths = {key: values[key] for key in plan.path_keys if isinstance(values[key], str) and "://" not in values[key]}
    whole = {key: str(Path(path).expanduser().absolute()) for key, path in paths.items()}
    return [presets.hydra_override(key, value) for key, value in (settings | whole).items()]


def is_read_before(plan: Plan, keys: Iterable[str]) -> bool:
    """Say whether a stage that runs before the experiments, or something it needs, reads one of the keys."""
    before = dvc_graph.plan_stages(plan.shared) if plan.shared else []
    with open_repo() as repo:
        stages = [stage for stage in repo.index.stages if stage.addressing in before]
    return any(_reads(stage, key) for stage in stages for key in keys)


def bring_up_to_date(stages: Sequence[str]) -> None:
    """Run what changed of some stages and of all they need, in the workspace and without Prefect."""
    if not stages:
        return
    with dvc_graph.only_run() as lock_fd:
        for stage in dvc_graph.plan_stages(stages):
            log = logging.LoggerAdapter(logger, {"stage": stage})
            if dvc_graph.is_unchanged(stage):
                log.info("unchanged")
            else:
                dvc_graph.reproduce_stage(stage, force=False, lock_fd=lock_fd)


def read_rows(combinations: Mapping[str, Combination], paths: Sequence[str]) -> list[Row]:
    """Return the experiments with their metrics, best first.

    Args:
        combinations: By experiment, all kept.
        paths: Metric files; of a metric in several the last one counts.
    """
    if not combinations:
        return []
    with open_repo() as repo:
        shown = repo.metrics.show(targets=list(paths), revs=list(combinations))
    rows = []
    for name, combination in combinations.items():
        files = shown.get(name, {}).get("data", {})
        metrics: dict[str, Any] = {}
        for path in paths:
            metrics |= presets.flatten(files.get(path, {}).get("data", {}))
        rows.append(Row(name, combination, metrics))
    ranking = rank_by(rows)
    return sorted(rows, key=lambda row: [_badness(row, metric) for metric in ranking])


def rank_by(rows: Sequence[Row]) -> list[str]:
    """Return what decides which row is best: accuracy, then loss, of the validation split if there are such."""
    names = numeric_metrics(rows)
    chosen = []
    for word in ("accuracy", "loss"):
        candidates = [name for name in names if name.endswith(word)]
        chosen += sorted(candidates, key=lambda name: ("val" not in name, name.count(".")))[:1]
    return chosen


def numeric_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the names of the metrics that are single numbers, in the order of their files."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return [name for name in names if all(_is_number(row.metrics.get(name, 0)) for row in rows)]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line an experiment: its name, the swept keys, and all metrics."""
    keys = list(rows[0].combination)
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["experiment", *keys, *metrics])
        for row in rows:
            writer.writerow([row.name, *row.combination.values(), *(row.metrics.get(name, "") for name in metrics)])


def _reads(stage: Stage, key: str) -> bool:
    declared = [name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params]
    return any(f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.") for name in declared)


def _find(name: str, order: Sequence[Stage]) -> Stage:
    for stage in order:
        if stage.addressing == name:
            return stage
    raise PawlineError(f"unknown stage {name}: dvc.yaml has {', '.join(stage.addressing for stage in order)}")


def _default_target(
    graph: Graph, order: Sequence[Stage], touched: Sequence[Stage], metrics: Mapping[Stage, Sequence[str]]
) -> Stage:
    for last in reversed(touched):  # nothing is measured after an export
        for stage in order[order.index(last) :]:
            if metrics[stage] and last in plan_repro(graph, [stage]):
                return stage
    return touched[-1]


def _between(graph: Graph, touched: Sequence[Stage], last: Stage) -> list[Stage]:
    """Return the stages from those that read a swept key to the last, in order.

    A stage that always runs declares no settings, and may tell the next one what it saw of them: it comes along.
    """
    needed = plan_repro(graph, [last])
    found = [stage for stage in needed if any(other in plan_repro(graph, [stage]) for other in touched)]
    told_by = {source for stage in found if stage in touched for source in graph.successors(stage)}
    return [stage for stage in needed if stage in found or (stage in told_by and stage.always_changed)]


def _metric_paths(repo: Repo, stage: Stage) -> list[str]:
    """Return the metric files that a stage writes: outputs, or files in its outputs named at the top of dvc.yaml."""
    outs = [Path(out.fs_path).relative_to(repo.root_dir) for out in stage.outs]
    named = sorted("/".join(key) for key in repo.index.metric_keys["repo"])
    return [path for path in named if any(Path(path).is_relative_to(out) for out in outs)]


def _badness(row: Row, metric: str) -> float:
    """Return what the rows are sorted by; a metric that is missing or not a number comes last."""
    value = float(row.metrics.get(metric, "nan"))
    if math.isnan(value):
        return math.inf
    return value if metric.endswith("loss") else -value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
