"""The curves: best epoch, files."""

from pathlib import Path

from tasks import curves
from tasks.curves import History


def test_best_is_accuracy_then_loss_then_the_earlier() -> None:
    rows = [(0.8, 0.5), (0.9, 0.4), (0.9, 0.3), (0.9, 0.3), (0.7, 0.1)]
    history = History([{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in rows])
    assert history.best is history.epochs[2]


def test_curves_have_six_digits(tmp_path: Path) -> None:
    history = History([{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 1e-5 / 3}], [{"step": 1, "loss": 2.0}])
    curves.write_curves(history, tmp_path)
    assert (tmp_path / "epochs.csv").read_bytes() == b"epoch,loss\n1,0.333333\n2,3.33333e-06\n"
    assert (tmp_path / "batches.csv").read_bytes() == b"step,loss\n1,2.0\n"
    curves.write_metrics({"loss": 2 / 3, "epoch": 4, "selected": "stage2"}, tmp_path / "metrics.json")
    expected = '{\n  "epoch": 4,\n  "loss": 0.666667,\n  "selected": "stage2"\n}\n'
    assert (tmp_path / "metrics.json").read_text() == expected
