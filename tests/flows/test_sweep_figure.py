from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flows.sweep import Row
from flows.sweep_figure import draw_sweep


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, as they are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, path: Path, *, dpi: int, metadata: dict[str, None]) -> None:
        figures.append(figure)
        save(figure, path, dpi=dpi, metadata=metadata)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def rows(*combinations: dict[str, str]) -> list[Row]:
    metrics = ({"val_accuracy": 0.9 - i / 100, "val_loss": 0.1 + i / 50} for i in range(len(combinations)))
    return [Row(f"s-{i}", one, figures) for i, (one, figures) in enumerate(zip(combinations, metrics, strict=True))]


def test_one_key_of_numbers_is_a_line(drawn: list[Figure], tmp_path: Path) -> None:
    draw_sweep(rows({"a.rate": "1e-2"}, {"a.rate": "1e-4"}, {"a.rate": "1e-3"}), "s", tmp_path / "s.png")
    accuracy, loss = drawn[0].axes
    assert (accuracy.get_xlabel(), accuracy.get_title(), loss.get_title()) == ("a.rate", "val_accuracy", "val_loss")
    assert accuracy.get_xscale() == "log"
    np.testing.assert_array_equal(accuracy.lines[0].get_xdata(), [1e-4, 1e-3, 1e-2])
    np.testing.assert_array_equal(accuracy.lines[1].get_xdata(), [1e-2])  # the best
    draw_sweep(rows({"a.rate": "0.1"}, {"a.rate": "0"}), "s", tmp_path / "s.png")
    assert drawn[1].axes[0].get_xscale() == "linear"


def test_two_keys_are_a_heat_map(drawn: list[Figure], tmp_path: Path) -> None:
    combinations = [{"rate": rate, "units": units} for rate in ("1e-3", "2e-4") for units in ("[]", "[8]")]
    draw_sweep(rows(*combinations[:3]), "s", tmp_path / "s.png")  # one failed
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2e-4", "1e-3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["[]", "[8]"]
    colored = axes.images[0].get_array()
    assert colored is not None
    np.testing.assert_allclose(np.ma.filled(colored.astype(float), np.nan), np.array([[0.88, 0.9], [np.nan, 0.89]]))
    assert [text.get_text() for text in axes.texts if "best" in text.get_text()] == ["0.9000\nbest"]


def test_more_keys_are_dots_best_first(drawn: list[Figure], tmp_path: Path) -> None:
    made = rows(*({"x.a": str(a), "x.b": "relu", "x.c": str(c), "x.d": "[1]"} for a in range(2) for c in range(2)))
    draw_sweep([row._replace(combination=row.combination | {"x.d": row.name}) for row in made], "s", tmp_path / "s.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels[0] == "a=0 c=0 d=s-0"
    assert len(labels) == 4
    assert drawn[0].axes[0].get_ylim()[0] > drawn[0].axes[0].get_ylim()[1]


def test_the_file_is_a_picture_without_a_date(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_sweep(rows({"k": "relu"}, {"k": "gelu"}), "s", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").width > 1000
