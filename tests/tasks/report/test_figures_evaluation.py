from tasks.report.figures_evaluation import (
    Measured,
    draw_precision_recall,
    draw_reliability,
    draw_robustness,
    draw_roc,
)
from tests.tasks.report.test_figures import check_svg

CURVE = [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


def steps(*amounts: str) -> list[Measured]:
    return [Measured(amount, 0.9 - n / 10, 0.8 - n / 10, 0.95 - n / 10, 100) for n, amount in enumerate(amounts)]


def test_every_figure_stands_in_the_page() -> None:
    bins = [Measured(0.7, 0.6, 0.5, 0.7, 5), Measured(0.95, 1.0, 0.9, 1.0, 50)]
    for svg in (
        draw_roc({"cat": CURVE}, "ROC"),
        draw_precision_recall({"cat": CURVE}, "precision and recall"),
        draw_precision_recall({}, "nothing known"),
        draw_reliability(bins, bins[:1], "calibration"),
        draw_robustness(0.95, steps("1 px", "2 px"), 0.5, "blur"),
    ):
        check_svg(svg)


def test_curves_of_many_classes_share_a_colour_and_stay_small() -> None:
    long = [(n / 5000, n / 5000) for n in range(5001)]
    nine = draw_roc({str(n): CURVE for n in range(9)}, "nine")
    assert "var(--train)" in nine
    assert "var(--class-1)" not in nine
    assert len(draw_roc({str(n): long for n in range(40)}, "forty")) < 120_000


def test_a_bin_of_few_images_is_faint() -> None:
    few, many = (draw_reliability([Measured(0.7, 0.6, 0.5, 0.7, n)], [], "calibration") for n in (9, 10))
    assert "opacity: 0.35" in few
    assert "opacity" not in many


def test_a_word_that_all_amounts_share_stands_under_the_axis() -> None:
    quality = draw_robustness(0.95, steps("quality 50", "quality 10"), 0.5, "jpeg")
    assert ">50</text>" in quality
    assert quality.count(">quality</text>") == 1
    assert ">1 px</text>" in draw_robustness(0.95, steps("1 px", "2 px"), 0.5, "blur")
    assert ">0.95</text>" not in quality
    assert ">90 %</text>" in quality
