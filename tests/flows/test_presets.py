import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import to_hydra_overrides

from flows import presets
from tasks.stage import PawlineError
from tests.conftest import ROOT

COMMITTED = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def settings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: params.yaml and one preset."""
    folder = tmp_path / "project"
    (folder / "presets").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "presets/small.yaml").write_text("# A small one\ntrain_head: {epochs: 2}\nimage:\n  size_px: 96\n")
    monkeypatch.chdir(folder)
    return folder


def test_a_preset_is_described_and_loaded(settings_only: Path) -> None:
    assert presets.preset_names() == ["small"]
    assert presets.describe_preset("small") == "A small one"
    assert presets.load_preset("small") == {"train_head.epochs": 2, "image.size_px": 96}


def test_an_unknown_preset_is_answered_with_the_known_ones(settings_only: Path) -> None:
    with pytest.raises(PawlineError, match=r"^unknown preset smal: did you mean small\? \(known here: small\)$"):
        presets.load_preset("smal")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("a.b=1e-4", {"a.b": 0.0001}),
        ("a.b=[128, 64]", {"a.b": [128, 64]}),
        ("a.b=null", {"a.b": None}),
        ("a.b=", {"a.b": None}),
        ("a.b=x=y", {"a.b": "x=y"}),
        ("a={b: 1, c: {d: true}}", {"a.b": 1, "a.c.d": True}),
    ],
)
def test_a_setting_is_yaml(text: str, settings: dict[str, Any]) -> None:
    assert repr(presets.parse_setting(text)) == repr(settings)


@pytest.mark.parametrize("text", ["train_head.epochs", "=3", "a=[1"])
def test_what_is_no_setting_gets_one_line(text: str) -> None:
    with pytest.raises(PawlineError, match=r"^[^\n]*(write KEY=VALUE|not readable YAML)[^\n]*$"):
        presets.parse_setting(text)


def test_the_command_line_goes_over_the_preset(settings_only: Path) -> None:
    settings = presets.collect_settings("small", ["train_head.epochs=5"], here=settings_only)
    assert settings == {"train_head.epochs": 5, "image.size_px": 96}


def test_relative_paths_start_where_the_user_stands(settings_only: Path) -> None:
    (settings_only.parent / "x.zip").touch()
    here = settings_only / "docs"
    given = ["data.path=../../x.zip", "data.source=archive", "backbone.path=w.h5"]
    settings = presets.collect_settings(None, given, here=here)
    assert settings == {"data.path": "../x.zip", "data.source": "archive", "backbone.path": "docs/w.h5"}
    for kept in ("https://host/x.zip", str(settings_only / "x.zip"), ""):
        assert presets.relative_to_root(kept, here) == kept
    assert presets.relative_to_root("./x.zip", settings_only) == "x.zip"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("photos", "directory"),
        ("x.zip", "archive"),
        ("https://h/x.zip", "archive"),
        ("s3://b/x.zip", "archive"),
        ("s3://b/x/", "directory"),
    ],
)
def test_the_source_follows_the_path(
    path: str, source: str, settings_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flows")
    (settings_only / "photos").mkdir()
    (settings_only / "x.zip").touch()
    assert presets.collect_settings(None, [f"data.path={path}"], here=settings_only)["data.source"] == source
    assert f"data.source is {source} instead of synthetic" in caplog.text
    chosen = presets.collect_settings(None, [f"data.path={path}", "data.source=tfds"], here=settings_only)
    assert chosen["data.source"] == "tfds"
    with pytest.raises(PawlineError, match=r"data\.path is 'nowhere': no such file or folder"):
        presets.collect_settings(None, ["data.path=nowhere"], here=settings_only)


def test_a_preset_says_the_source_before_params_yaml_does(settings_only: Path) -> None:
    (settings_only / "photos").mkdir()
    presets.write_settings({"data.source": "tfds"})
    with pytest.raises(PawlineError, match=r"data\.source is tfds"):
        presets.combine(None, {"data.path": "photos"})
    (settings_only / "presets/zip.yaml").write_text("data: {source: archive}\n")
    for given in ({"data.path": "photos"}, {}):
        over = presets.over_preset(presets.combine("zip", given), given)
        assert over == (given | {"data.source": "directory"} if given else {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train_head.epohcs=1", "unknown key train_head.epohcs: did you mean epochs?"),
        ("epochs=1", "unknown key epochs:"),
        ("train_head.dropout=2", "train_head.dropout is 2: allowed is a number at least 0, below 1"),
        ("train_head.epochs.x=2", "train_head.epochs is"),
        ("train_head=2", "train_head is 2"),
    ],
)
def test_what_is_wrong_is_said_as_of_params_yaml(text: str, message: str, settings_only: Path) -> None:
    with pytest.raises(PawlineError) as error:
        presets.changes(presets.parse_setting(text))
    assert str(error.value).startswith(f"params.yaml: {message}")
    assert "\n" not in str(error.value)


def test_only_what_differs_is_a_change(settings_only: Path) -> None:
    changes = presets.changes({"train_head.epochs": 20, "image.size_px": 96, "train_head.stop_patience": None})
    assert changes == {"image.size_px": 96}


def test_nothing_to_change_leaves_the_file_alone(settings_only: Path) -> None:
    odd = COMMITTED.replace("  epochs: 20", "  epochs:   20   # odd") + "\n\n"
    (settings_only / "params.yaml").write_text(odd)
    before = (settings_only / "params.yaml").stat()
    presets.write_settings(presets.changes({"train_head.epochs": 20}))
    assert (settings_only / "params.yaml").read_text() == odd
    assert (settings_only / "params.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_comments_and_layout_survive(settings_only: Path) -> None:
    presets.write_settings(
        {
            "train_head.hidden_units": [128, 64],
            "train_head.stop_patience": 3,
            "fine_tune.learning_rate": 2e-5,
            "validate.splits.train": 0.7,
            "data.path": "../x y.zip",
        }
    )
    changed = {
        "  hidden_units: []           #": "  hidden_units: [128, 64]    #",
        "  stop_patience: null        #": "  stop_patience: 3           #",
        "  learning_rate: 0.00003": "  learning_rate: 0.00002",
        "{train: 0.8,": "{train: 0.7,",
        "  path: null                 # archive": "  path: ../x y.zip           # archive",
    }
    expected = COMMITTED
    for before, after in changed.items():
        assert expected.count(before) == 1
        expected = expected.replace(before, after)
    assert (settings_only / "params.yaml").read_text() == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 1e-5, 0.25, [], [128], [256, 64], ["a b", None], {"a": 1}),
        *("squash", "null", "1e-4", "inf", "a,b", "it's", "back\\slash\\", "x(1)", "ü", "a=b", "", "\\'"),
        *("https://host/a-b_c.zip", "../x.zip", "~/x"),
    ],
    ids=repr,
)
def test_hydra_reads_back_what_is_written(value: object) -> None:
    (read,) = to_hydra_overrides([presets.hydra_override("a.b", value)])
    assert repr(read.value()) == repr(value)
    assert not read.is_sweep_override()


def test_arguments_with_a_space_are_refused(settings_only: Path) -> None:
    with pytest.raises(PawlineError, match="has a space in it"):
        presets.dvc_arguments({"data.path": "my photos"})
