"""The lineage as a tree on the terminal: the model, and from it back to the photos, stage by stage."""

import hashlib
import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.text import Text
from rich.tree import Tree

from lineage.lockfile import FOLDER_SUFFIX, flatten
from lineage.records import Artifact, CountsRecord, EnvironmentRecord, Lineage, StageRecord
from lineage.words import size
from tasks.words import visible

SPLITS = ("train", "val", "test")
HASH_LENGTH = 10  # hexadecimal digits of a shortened hash: tells apart what one project has
LABEL_WIDTH = 9
LONGEST_LIST = 40  # characters of a list among parameters; a longer one is counted
ADVICE = "their bytes are in no cache and no remote of this clone: `dvc pull` once a remote has them"

Row = tuple[str, list[str]]


class Facts:
    """A title and labelled lists below it; what stands together (a path and its hash) is not broken over lines."""

    def __init__(self, title: Text, rows: Iterable[Row]) -> None:
        self.title = title
        self.rows = [(label, items) for label, items in rows if items]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines, for the width there is."""
        self.title.no_wrap, self.title.overflow = True, "ellipsis"
        yield self.title
        for label, items in self.rows:
            lines = pack([visible(item) for item in items], options.max_width - LABEL_WIDTH)
            for number, line in enumerate(lines):
                yield Text.assemble((("" if number else label).ljust(LABEL_WIDTH), "dim"), line)


def build_tree(lineage: Lineage) -> Tree:
    """Return the tree, to be printed by rich."""
    tree = Tree(Facts(_model_title(lineage), _model_rows(lineage)), guide_style="dim")
    made_by = makers(lineage)
    made = tree.add(Text("made by, from the last stage back", style="italic"))
    used = Tree(Text("used by, from the last stage back", style="italic"), guide_style="dim")
    for stage in reversed(lineage.stages):
        branch = made if stage.name in made_by else used
        branch.add(Facts(_stage_title(stage), _stage_rows(lineage, stage)))
    if used.children:
        tree.children.append(used)
    tree.add(Facts(Text("with"), _environment_rows(lineage.environment)))
    if lineage.missing:
        rows = [("files", listed(lineage.missing)), ("", ADVICE.split())]
        tree.add(Facts(Text("not known here", style="bold yellow"), rows))
    return tree


def makers(lineage: Lineage) -> set[str]:
    """Return the names of the stages that the classifier comes from; the others judge, export or report it."""
    stages = {stage.name: stage for stage in lineage.stages}
    found: set[str] = set()
    waiting = [lineage.model.stage]
    while waiting:
        name = waiting.pop()
        if name in stages and name not in found:
            found.add(name)
            waiting += [artifact.stage for artifact in stages[name].inputs]
    return found


def short(digest: str) -> str:
    """Return the first digits of a hash."""
    return digest.removesuffix(FOLDER_SUFFIX)[:HASH_LENGTH]


def code_files(stage: StageRecord) -> int:
    """Return how many files of code a stage consists of, those within folders counted."""
    return sum(artifact.files or 1 for artifact in stage.code)


def code_digest(stage: StageRecord) -> str:
    """Return one SHA-256 for all of a stage's code: equal if and only if every path and md5 is."""
    lines = sorted(f"{artifact.path} {artifact.md5}\n" for artifact in stage.code)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: `1 file`, `1,200 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show(value: Any) -> str:  # noqa: ANN401 - whatever YAML and JSON hold
    """Return a parameter's value as one short word, exactly: null, 0.0005, squash, [128]."""
    if isinstance(value, str):
        return value if value and " " not in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        text = f"[{','.join(show(item) for item in value)}]"
        return text if len(text) <= LONGEST_LIST else f"[{counted(len(value), 'value')}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def rounded(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return a metric with four significant digits, a list of them likewise; the rest as it is."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def pack(items: list[str], width: int) -> list[str]:
    """Put items on lines of at most that many columns; only an item longer than a line is broken, at its spaces."""
    lines: list[str] = []
    for item in items:
        for part in textwrap.wrap(item, 1, break_long_words=False) if cell_len(item) > width else [item]:
            if lines and cell_len(lines[-1]) + 1 + cell_len(part) <= width:
                lines[-1] += f" {part}"
            else:
                lines += chop_cells(part, max(width, 1))
    return lines


def listed(items: Iterable[str]) -> list[str]:
    """Return items with commas between them."""
    *first, last = [*items] or [""]
    return [*(f"{item}," for item in first), last] if last else []


def _model_title(lineage: Lineage) -> Text:
    model = lineage.model
    title = Text(visible(model.path), style="bold")
    title.append(f"  {short(model.md5)}  {size(model.bytes)}", style="not bold")
    if lineage.version:
        title.append(f"  {visible(lineage.version)}", style="bold green")
    return title


def _model_rows(lineage: Lineage) -> Iterator[Row]:
    if lineage.kind in ("workspace", "experiment"):
        yield "run", [lineage.kind if lineage.kind == lineage.name else f"{lineage.kind} {lineage.name}"]
    if lineage.commit is not None:
        commit = lineage.commit
        who = [short(commit.id), "by", *commit.author.split(), f"<{commit.email}>,", f"{commit.time}:"]
        yield "commit", [*who, *commit.subject.split()]
    if lineage.uncommitted:
        yield "changed", [*listed(lineage.uncommitted), "(since that commit)"]
    if lineage.metrics is not None:
        yield "result", [result(lineage.metrics)]


def result(metrics: dict[str, Any]) -> str:
    """Return how good the classifier is, in one line."""
    low, high = rounded(metrics["accuracy_interval"])
    images = counted(metrics["images"], "image")
    return f"accuracy {rounded(metrics['accuracy'])} ({low} to {high}) on {images} of the {metrics['split']} split"


def _stage_title(stage: StageRecord) -> Text:
    return Text.assemble(
        (visible(stage.name), "bold cyan"), "  ", (visible(" ".join(stage.description.split())), "dim")
    )


def _stage_rows(lineage: Lineage, stage: StageRecord) -> Iterator[Row]:
    yield "params", _params(stage.params)
    yield "code", [f"{counted(code_files(stage), 'file')},", f"digest {short(code_digest(stage))};", stage.command]
    yield "reads", listed(f"{artifact.path} {short(artifact.md5)}" for artifact in stage.inputs)
    yield "writes", listed(map(_written, stage.outputs))
    if stage.name == "source":
        yield "photos", _pairs(lineage.source.fingerprint or {})
    if stage.name == "validate" and lineage.counts is not None:
        yield from _count_rows(lineage.counts)
    if stage.name == "backbone":
        yield "weights", _pairs(lineage.weights or {})
    if stage.name == "evaluate":
        yield "metrics", _pairs({key: rounded(value) for key, value in flatten(lineage.metrics or {})})
    if stage.run is not None:
        run = stage.run
        ids = [f"flow run {run.flow_run_id[:8]},", f"task run {run.task_run_id[:8]},"]
        yield "Prefect", [f"{run.flow_run_name}:", *ids, f"{run.started} to {run.ended}"]


def _params(params: dict[str, Any]) -> list[str]:
    """Return `section: key=value ...` for each section of params.yaml."""
    items, last = [], None
    for key, value in sorted(params.items()):
        section, _, name = key.partition(".")
        if section != last:
            items.append(f"{section}:")
        items.append(f"{name}={show(value)}")
        last = section
    return items


def _pairs(facts: dict[str, Any]) -> list[str]:
    return [f"{key}={show(value)}" for key, value in flatten(facts)]


def _written(artifact: Artifact) -> str:
    files = "" if artifact.files is None else f" in {counted(artifact.files, 'file')}"
    return f"{artifact.path} {short(artifact.md5)} ({size(artifact.bytes)}{files})"


def _count_rows(counts: CountsRecord) -> Iterator[Row]:
    yield "photos", [f"{counts.images:,} seen,", f"{counts.kept:,} kept,", f"{counts.quarantined:,} quarantined"]
    yield "", listed(f"{reason} {number:,}" for reason, number in counts.by_reason.items())
    for number, split in enumerate(sorted(counts.splits, key=_split_order)):
        labels = counts.splits[split]
        kept = listed(f"{label} {images:,}" for label, images in labels.items())
        yield "" if number else "splits", [f"{split}:", *kept]


def _split_order(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _environment_rows(environment: EnvironmentRecord) -> Iterator[Row]:
    machine = [f"Python {environment.python}"] if environment.python else []
    machine += [environment.machine] if environment.machine else []
    machine += [counted(environment.threads, "thread")] if environment.threads else []
    yield "machine", listed(machine + environment.processor_features)
    yield "packages", listed(f"{name} {version}" for name, version in environment.packages.items())
    if environment.engine:
        yield "features", [f"{environment.engine} in {environment.precision}"]
    if environment.lock_file is not None:
        yield "locked", [f"{environment.lock_file.path} {short(environment.lock_file.md5)}"]
