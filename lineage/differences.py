"""What differs between two runs: parameters, code, outputs, photos, figures, environment."""

import difflib
import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from lineage import lockfile
from lineage.photo_changes import PhotoChanges, photo_changes
from lineage.records import Artifact, Lineage, Record
from lineage.runs import Project, Run
from lineage.trace import trace

IMAGES_PATH = "data/images.parquet"
SHOWN_MD5 = 10
HEADLINE = ("accuracy", "auc", "loss")  # of reports/metrics/evaluation.json: shown even when they are the same


class Change(Record):
    """A value that differs.

    Attributes:
        key: Dotted.
        first: In the first run; None if that has no such key (or if the value is null).
        second: In the second run.
        only_in: The run that alone has the key.
    """

    key: str
    first: Any = None
    second: Any = None
    only_in: Literal["first", "second"] | None = None

    def line(self) -> str:
        """Return it for the terminal, such as `features.views: 3 -> 5`."""
        if self.only_in == "first":
            return f"{self.key}: {shown(self.first)} -> (none)"
        if self.only_in == "second":
            return f"{self.key}: (none) -> {shown(self.second)}"
        return f"{self.key}: {shown(self.first)} -> {shown(self.second)}"


class CodeChange(Record):
    """A code file that differs: for which stages, and how many lines the second run has more and less.

    `added` and `removed` are None when one of the two contents is not in git at the run's commit.
    """

    path: str
    stages: list[str]
    added: int | None
    removed: int | None


class StageOutputs(Record):
    """Which outputs of a stage are the same bytes in both runs, and which differ or are only in one."""

    stage: str
    same: list[str]
    differ: list[str]


class Differences(Record):
    """What differs between two runs; whatever is empty is the same in both.

    Attributes:
        first: The name of the first run.
        second: The name of the second.
        identical: Whether the classifiers are the same bytes.
        models: The md5 of each classifier.
        parameters: That a stage read.
        code: Files that a stage read and that no stage wrote, with the stages that read another content.
        commands: By stage.
        outputs: Of every stage, in the order of the pipeline.
        first_difference: The first stage whose outputs differ.
        photos: What data/images.parquet has otherwise; None if one of the two tables is nowhere.
        counts: Of validation.
        metrics: Figures of evaluation that differ, and always the accuracy, the AUC and the loss.
        environment: With what each was trained.
        weights: Where the backbone's weights came from.
        missing: Files whose facts could not be compared, because their bytes are neither here nor in a remote.
    """

    first: str
    second: str
    identical: bool
    models: tuple[str, str]
    parameters: list[Change]
    code: list[CodeChange]
    commands: list[Change]
    outputs: list[StageOutputs]
    first_difference: str | None
    photos: PhotoChanges | None
    counts: list[Change]
    metrics: list[Change]
    environment: list[Change]
    weights: list[Change]
    missing: list[str]

    def lines(self) -> list[str]:
        """Return it for the terminal."""
        photos = ["not known: a table is missing"] if self.photos is None else self.photos.lines()
        same_photos = self.photos is not None and self.photos.is_empty
        missing = _part("could not be compared: neither here nor in a remote", self.missing) if self.missing else []
        return [
            *_headline(self),
            *_part("parameters", [change.line() for change in self.parameters]),
            *_part("code", [_code_line(change) for change in self.code]),
            *(_part("commands", [change.line() for change in self.commands]) if self.commands else []),
            *_output_lines(self),
            *_part("photos", [] if same_photos else photos),
            *_part("counts", [change.line() for change in self.counts]),
            *_part("metrics", [_rounded(change).line() for change in self.metrics]),
            *_part("environment", [change.line() for change in self.environment]),
            *_part("weights", [change.line() for change in self.weights]),
            *missing,
        ]


def differences(project: Project, first: Run, second: Run) -> Differences:
    """Compare two runs.

    Raises:
        PawlineError: One of them has no dvc.lock, or wrote no classifier.
    """
    one, two = trace(project, first), trace(project, second)
    outputs = _outputs(one, two)
    photos, lost_tables = _photos(project, first, second)
    return Differences(
        first=first.name,
        second=second.name,
        identical=one.model.md5 == two.model.md5,
        models=(one.model.md5, two.model.md5),
        parameters=compare(_params(one), _params(two)),
        code=_code(project, (first, one), (second, two)),
        commands=compare(*({stage.name: stage.command for stage in run.stages} for run in (one, two))),
        outputs=outputs,
        first_difference=next((stage.stage for stage in outputs if stage.differ), None),
        photos=photos,
        counts=compare(*(_flat(None if run.counts is None else run.counts.model_dump()) for run in (one, two))),
        metrics=_metrics(_flat(one.metrics), _flat(two.metrics)),
        environment=compare(*(_flat(run.environment.model_dump()) for run in (one, two))),
        weights=compare(_flat(one.weights), _flat(two.weights)),
        missing=sorted({*one.missing, *two.missing, *lost_tables}),
    )


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Return the keys whose values differ, in the order of the first mapping, then of the second."""
    changes = []
    for key in dict.fromkeys([*first, *second]):
        if key not in second:
            changes.append(Change(key=key, first=first[key], only_in="first"))
        elif key not in first:
            changes.append(Change(key=key, second=second[key], only_in="second"))
        elif first[key] != second[key]:
            changes.append(Change(key=key, first=first[key], second=second[key]))
    return changes


def line_changes(before: bytes, after: bytes) -> list[tuple[int, str, str]]:
    """Return the lines that differ between two texts.

    Returns:
        For each its number (in the text that has it), `-` or `+`, and the line.
    """
    old, new = (text.decode(errors="replace").splitlines() for text in (before, after))
    changes: list[tuple[int, str, str]] = []
    for tag, old_from, old_to, new_from, new_to in difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes():
        if tag != "equal":
            changes += [(number + 1, "-", old[number]) for number in range(old_from, old_to)]
            changes += [(number + 1, "+", new[number]) for number in range(new_from, new_to)]
    return changes


def shown(value: object) -> str:
    """Return a value as params.yaml would have it; of a long list the beginning."""
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else str(value)
    assert text is not None  # noqa: S101 - for the type checker
    return text if len(text) <= 100 else f"{text[:97]}..."


def _params(run: Lineage) -> dict[str, Any]:
    return {key: value for stage in run.stages for key, value in stage.params.items()}


def _flat(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(lockfile.flatten(dict(values or {})))


def _metrics(first: dict[str, Any], second: dict[str, Any]) -> list[Change]:
    different = compare(first, second)
    headline = [
        Change(key=key, first=first[key], second=second[key]) for key in HEADLINE if {key} <= {*first} & {*second}
    ]
    return [*headline, *(change for change in different if change.key not in HEADLINE or change.only_in)]


def _code(project: Project, first: tuple[Run, Lineage], second: tuple[Run, Lineage]) -> list[CodeChange]:
    """Compare stage by stage: of a run that was only begun, two stages can have read the same file differently."""
    sides = [
        {(file.path, stage.name): file for stage in run.stages for file in stage.code} for _, run in (first, second)
    ]
    differing: dict[str, list[str]] = {}
    for change in (key for key in dict.fromkeys([*sides[0], *sides[1]]) if sides[0].get(key) != sides[1].get(key)):
        differing.setdefault(change[0], []).append(change[1])
    changes = []
    for path, stages in sorted(differing.items()):
        old, new = (side.get((path, stages[0])) for side in sides)
        added, removed = _count_lines(_content(project, first[0], old), _content(project, second[0], new))
        changes.append(CodeChange(path=path, stages=stages, added=added, removed=removed))
    return changes


def _content(project: Project, run: Run, file: Artifact | None) -> bytes | None:
    """Return a code file as the run read it: empty if it had none, None if what is there now is something else."""
    if file is None:
        return b""
    content = project.read(run, file.path)
    if content is None or hashlib.md5(content, usedforsecurity=False).hexdigest() != file.md5:
        return None
    return content


def _count_lines(before: bytes | None, after: bytes | None) -> tuple[int, int] | tuple[None, None]:
    if before is None or after is None:
        return None, None
    signs = [sign for _, sign, _ in line_changes(before, after)]
    return signs.count("+"), signs.count("-")


def _outputs(one: Lineage, two: Lineage) -> list[StageOutputs]:
    sides = [{stage.name: {out.path: out.md5 for out in stage.outputs} for stage in run.stages} for run in (one, two)]
    result = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(name, {}) for side in sides)
        differ = [change.key for change in compare(old, new)]
        result.append(StageOutputs(stage=name, same=[path for path in old if path not in differ], differ=differ))
    return result


def _photos(project: Project, first: Run, second: Run) -> tuple[PhotoChanges | None, list[str]]:
    """Return the changes, and the table's path if one of the two is nowhere."""
    outs = [lockfile.find_out(project.lock(run), IMAGES_PATH) for run in (first, second)]
    tables = [None if out is None else project.store.read(out.md5) for out in outs]
    if tables[0] is None or tables[1] is None:
        return None, [IMAGES_PATH]
    return photo_changes(tables[0], tables[1]), []


def _rounded(change: Change) -> Change:
    """Return a figure with four digits: more are noise to a reader, and the document has them."""
    values = {name: _round(getattr(change, name)) for name in ("first", "second")}
    return change.model_copy(update=values)


def _round(value: object) -> object:
    if isinstance(value, list):
        return [_round(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _headline(found: Differences) -> list[str]:
    one, two = (md5[:SHOWN_MD5] for md5 in found.models)
    if found.identical:
        return [f"{found.first} -> {found.second}: identical classifiers, the same bytes (md5 {one})"]
    return [f"{found.first} -> {found.second}: different classifiers (md5 {one} -> {two})"]


def _part(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines)] if lines else [f"{title}: the same"]


def _code_line(change: CodeChange) -> str:
    size = "" if change.added is None else f": +{change.added} -{change.removed} lines"
    return f"{change.path}{size} (read by {', '.join(change.stages)})"


def _output_lines(found: Differences) -> list[str]:
    same = [stage.stage for stage in found.outputs if not stage.differ]
    lines = [f"{stage.stage}: {', '.join(stage.differ)}" for stage in found.outputs if stage.differ]
    if lines:
        lines[0] += "  <- the first to differ"
    return (
        _part("outputs that differ", [*lines, f"same bytes: {', '.join(same) or 'none'}"])
        if lines
        else _part("outputs", [])
    )
