import hashlib
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from lineage.lockfile import LockedPath
from lineage.records import Artifact, EnvironmentRecord, Lineage, SourceRecord
from lineage.runs import WORKSPACE, Project, find_run
from lineage.trace import trace
from registry.card import lineage_digest, render_card, render_html
from registry.card_licences import data_licence, data_name, model_licence, weights_licence
from registry.card_run import CardRun, Recorded
from tasks.markdown import align_tables, code, escape
from tasks.words import visible

HOSTILE = (
    "plain",
    "a|b",
    "a\\|b\\",
    "`x`",
    "``",
    "---",
    "one\n---\nlicense: mit\n---\n# two",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "[x](javascript:alert(3)) ![y](http://example.com/z.png)",
    "http://example.com www.example.com",
    "**b** __c__ _d_ ~~e~~ &lt; &amp; $f$",
    "\u202egpj.exe",
    ": - {yaml: [1",
    "{{ 7 * 7 }} {% raw %}",
)
SECTIONS = [
    *("The model", "Intended use", "Training data", "Training", "Metrics", "Limits", "Licences", "Environment"),
    "Where it came from",
]


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, headings, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self._within: list[str] | None = None  # where text goes: to its last member
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "h1", "h2"):
            self._within = self.rows[-1] if tag in ("td", "th") else self.headings
            self._within.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h1", "h2"):
            self._within = None

    def handle_data(self, data: str) -> None:
        if self._within is not None:
            self._within[-1] += data


def read_as_hub(markdown: str) -> tuple[ModelCardData, str]:
    """Return a card's front matter and its text, as the hub's own library reads them."""
    card = ModelCard(markdown)
    assert isinstance(card.data, ModelCardData)
    return card.data, card.text


def lineage_of(project: Project, what: str | None) -> Lineage:
    return trace(project, find_run(project, what))


def put(project: Project, lineage: Lineage, path: str, content: bytes) -> Lineage:
    """Return the lineage as it were if a stage had written something else, which is then in the cache."""
    outs = {out.path: out for stage in lineage.stages for out in stage.outputs}
    if path in outs:
        md5 = keep(project, content)
    else:
        folder = str(Path(path).parent)
        listed = project.store.list_folder(LockedPath(folder, outs[folder].md5, 0)) or {}
        files = {**listed, Path(path).name: keep(project, content)}
        entries = [{"md5": md5, "relpath": name} for name, md5 in files.items()]
        path, md5 = folder, keep(project, json.dumps(entries).encode(), suffix=".dir")
    stages = []
    for stage in lineage.stages:
        written = [out.model_copy(update={"md5": md5}) if out.path == path else out for out in stage.outputs]
        stages.append(stage.model_copy(update={"outputs": written}))
    return lineage.model_copy(update={"stages": stages})


def keep(project: Project, content: bytes, suffix: str = "") -> str:
    """Put an object into the cache and return its md5 as DVC writes it."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    place = project.store.object_path(md5)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return md5


def table_bytes(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), written)
    return written.getvalue()


def with_params(lineage: Lineage, **values: object) -> Lineage:
    """Return the lineage with other parameters, wherever they are."""
    stages = [
        stage.model_copy(update={"params": {key: values.get(key, value) for key, value in stage.params.items()}})
        for stage in lineage.stages
    ]
    return lineage.model_copy(update={"stages": stages})


def test_a_card_is_what_hubs_read_and_says_what_is_on_record(three_runs: Path) -> None:
    project = Project(three_runs)
    for what, trained in (
        ("HEAD~1", ["", "Stage 1: new head", "Stage 2: fine-tuning"]),
        ("HEAD", ["", "Stage 1: new head"]),
    ):
        lineage = lineage_of(project, what)
        assert lineage.metrics is not None
        assert lineage.counts is not None
        markdown = render_card(project, lineage, "v7.0.0")
        assert markdown == render_card(Project(three_runs), lineage, "v7.0.0")
        assert str(three_runs) not in markdown

        data, text = read_as_hub(markdown)
        assert text.startswith("\n# Pawline classifier ")
        assert data.license == "apache-2.0"
        assert (data.library_name, data.pipeline_tag) == ("keras", "image-classification")
        assert data.tags == ["image-classification", "keras", "pawline", "synthetic-data"]
        results = {result.metric_type: result for result in data.eval_results or []}
        assert set(results) == {"accuracy", "roc_auc", "loss"}
        assert results["accuracy"].metric_value == pytest.approx(lineage.metrics["accuracy"], abs=1e-6)
        assert results["accuracy"].dataset_split == lineage.metrics["split"] == "test"

        page = Page(render_html(markdown))
        assert page.headings == ["Pawline classifier (v7.0.0)", *SECTIONS]
        assert trained in page.rows
        cells = {row[0]: row[1:] for row in page.rows}
        kept = lineage.counts.splits
        assert cells["cat"][:3] == [str(kept[split]["cat"]) for split in ("train", "val", "test")]
        assert cells["All"][3] == str(lineage.counts.kept)
        assert cells["not an image"][0] == str(lineage.counts.by_reason["not_an_image"])
        assert cells["learning rate"][0] == "0.0005"
        assert "momentum" not in cells  # of sgd
        assert cells["Lineage digest"] == [f"SHA-256 {lineage_digest(lineage)}"]
        assert lineage.model.md5 in cells["File"][0]
        low, high = map(float, cells["Loss (cross-entropy, nats)"][1].split(" to "))
        assert low <= lineage.metrics["loss"] <= high
        assert "> **Synthetic data.**" in markdown

    registered = lineage.model_copy(update={"version": "v7.0.0"})
    assert "\npawline verify v7.0.0 " in render_card(project, registered, "v7.0.0")
    assert "pawline verify v7.0.0" not in markdown


def test_the_digest_is_of_the_run_and_not_of_its_name(three_runs: Path) -> None:
    project = Project(three_runs)
    committed = lineage_of(project, "HEAD")
    digest = lineage_digest(committed)
    facts = json.loads(committed.model_dump_json())
    for name in ("name", "kind", "version"):
        del facts[name]
    for stage in facts["stages"]:
        del stage["run"]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert lineage_digest(trace(project, WORKSPACE)) == digest
    assert lineage_digest(committed.model_copy(update={"version": "v1.0.0", "name": "v1.0.0"})) == digest
    assert lineage_digest(lineage_of(project, "HEAD~1")) != digest
    assert (
        lineage_digest(committed.model_copy(update={"model": committed.model.model_copy(update={"bytes": 1})}))
        != digest
    )


def test_what_cannot_be_read_is_not_recorded(three_runs: Path) -> None:
    project = Project(three_runs)
    gone = ("reports/metrics", "models/stage", "models/backbone", "data/predictions", "data/images", "data/features")
    for stage in lineage_of(project, "HEAD").stages:
        for out in stage.outputs:
            if out.path.startswith(gone):
                project.store.object_path(out.md5).unlink(missing_ok=True)
    markdown = render_card(project, lineage_of(project, "HEAD"), "v1.0.0")
    data, text = read_as_hub(markdown)
    assert data.eval_results is None
    assert data.license == "unknown"
    assert "\nIt was not evaluated, or the figures cannot be read.\n" in markdown
    assert "reports/metrics/evaluation.json" in text.split("## Limits")[1]
    page = Page(render_html(markdown))
    assert page.headings[1:] == SECTIONS
    cells = {row[0]: row[1:] for row in page.rows}
    assert cells["Classes"] == cells["Selected"] == cells["frozen features by"] == ["not recorded"]


def test_a_weak_slice_is_named_and_a_small_one_says_nothing(three_runs: Path) -> None:
    project = Project(three_runs)
    lineage = lineage_of(project, "HEAD")
    rows = [
        {"id": f"{label}{n}", "label": label, "predicted": label if label == "cat" or n < 10 else "cat"}
        | {"probabilities": [0.5, 0.5]}
        for label, count in (("cat", 60), ("dog", 20))
        for n in range(count)
    ]
    lineage = put(project, lineage, "data/predictions.parquet", table_bytes(rows))
    metrics = {**(lineage.metrics or {}), "accuracy": 70 / 80, "images": 80, "accuracy_interval": [0.78, 0.93]}
    limits = render_card(project, lineage.model_copy(update={"metrics": metrics}), "v1.0.0").split("## Limits")[1]
    assert "- **Clearly worse on**: class: dog (10 of 20 right)." in limits
    assert "the interval is 15.0 percentage points wide" in limits


@pytest.mark.parametrize("text", HOSTILE)
def test_text_means_itself_within_a_table(text: str) -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for shown in (str(escape(text)), code(text)):
        page = Page(parser.render(align_tables(f"| x | y |\n|---|---:|\n| a {shown} | b{shown} |\n")))
        assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
        assert page.rows[1] == [f"a {visible(text)}".strip(), f"b{visible(text)}"]


def test_hostile_names_break_nothing(three_runs: Path) -> None:
    project = Project(three_runs)
    lineage = hostile(project, lineage_of(project, "HEAD"))
    markdown = render_card(project, lineage, HOSTILE[6])
    assert "/secret" not in markdown

    data, text = read_as_hub(markdown)
    assert data.license == "unknown"
    assert data.eval_results is not None
    assert data.eval_results[0].dataset_name == visible(f"{HOSTILE[6]}.zip")
    assert text.lstrip().startswith("# Pawline classifier (one")

    page = Page(render_html(markdown))
    assert not page.tags & {"script", "img", "a", "iframe"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.headings[1:] == SECTIONS
    names = [str(visible(label)) for label in HOSTILE]
    assert [row[0] for row in page.rows if row[1:5] == ["20", "20", "20", "60"]] == names
    assert {row[1] for row in page.rows if row[0] == "class" and row[2] == "20"} == set(names)


def hostile(project: Project, lineage: Lineage) -> Lineage:
    """Return the lineage with hostile text wherever text comes from outside."""
    labels = list(HOSTILE)
    answers = [
        {"id": str(number), "label": label, "predicted": label, "probabilities": [1.0] * len(labels)}
        for number, label in enumerate(labels * 20)
    ]
    lineage = put(project, lineage, "data/predictions.parquet", table_bytes(answers))
    trained = json.loads((project.root / "models/stage1/summary.json").read_text(encoding="utf-8"))
    summary = json.dumps({**trained, "labels": labels, "output": "softmax"}).encode()
    lineage = put(project, lineage, "models/stage1/summary.json", summary)
    lineage = with_params(lineage, **{"data.source": "archive", "data.path": f"/secret/{HOSTILE[6]}.zip"})
    splits = {split: dict.fromkeys(labels, 20) for split in ("train", "val", "test")}
    assert lineage.counts is not None
    assert lineage.commit is not None
    counts = {"labels": labels, "splits": splits, "by_reason": dict.fromkeys(labels, 1)}
    facts = {
        "counts": lineage.counts.model_copy(update=counts),
        "source": lineage.source.model_copy(update={"fingerprint": {"source": "archive", HOSTILE[1]: HOSTILE[7]}}),
        "weights": {"file": HOSTILE[6], "sha256": HOSTILE[3]},
        "commit": lineage.commit.model_copy(update={"subject": HOSTILE[8], "author": HOSTILE[1]}),
        "missing": labels,
        "uncommitted": labels,
    }
    return lineage.model_copy(update=facts)


def test_the_page_shows_html_and_loads_nothing() -> None:
    page = Page(
        render_html("---\na: 1\n---\n\n# A\\_b\n\n<script>x</script>\n\n## C\n\n![i](http://e.example/i.png) 5 %")
    )
    assert not page.tags & {"script", "link", "iframe", "a"}
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert page.headings == ["A_b", "C"]


def run_of(lineage: Lineage, **params: object) -> CardRun:
    return CardRun(lineage, Recorded(params), None, None, None, None, None)


def test_a_licence_is_named_only_if_it_is_on_record() -> None:
    artifact = Artifact(path="m", md5="0", bytes=1)
    facts: dict[str, Any] = dict.fromkeys(("version", "commit", "counts", "metrics"))
    nothing: dict[str, Any] = dict.fromkeys(("python", "machine", "threads", "engine", "precision", "lock_file"))
    lineage = Lineage(
        **facts,
        name="x",
        kind="commit",
        uncommitted=[],
        model=artifact,
        stages=[],
        source=SourceRecord(params={}, fingerprint=None),
        weights={"wheel": "w", "weights": "TF-Hub (Google, Apache-2.0)"},
        environment=EnvironmentRecord(**nothing, processor_features=[], packages={}),
        missing=[],
    )
    drawn = run_of(lineage, **{"data.source": "synthetic"})
    assert model_licence(drawn)[0] == data_licence(drawn)[0] == "Apache-2.0"
    url = "https://me:secret@example.com/a/pets.zip?token=1"
    photos = run_of(lineage, **{"data.source": "archive", "data.path": url})
    assert data_name(photos) == "pets.zip"
    assert data_name(run_of(lineage, **{"data.source": "archive", "data.path": "/a/b/pets #2.zip"})) == "pets #2.zip"
    assert (model_licence(photos)[0], data_licence(photos)[0]) == ("unknown", "not recorded")
    tfds = run_of(lineage, **{"data.source": "tfds", "data.tfds_name": "cats_vs_dogs"})
    assert data_licence(tfds)[1] == "cats_vs_dogs of TensorFlow Datasets, no version pinned"
    keras = run_of(
        lineage.model_copy(update={"weights": {"weights": "keras.applications"}}), **{"data.source": "synthetic"}
    )
    assert model_licence(keras)[0] == "unknown"
    assert weights_licence(lineage.weights)[0] == "Apache-2.0"
    assert "states no licence of its own" in weights_licence(lineage.weights)[1]
    assert weights_licence({"file": "w.h5"})[0] == weights_licence(None)[0] == "not recorded"
