import pytest

from tasks.report.figures_data import draw_aspects, draw_short_sides
from tests.tasks.report.test_figures import check_svg


def test_sizes_and_shapes_are_drawn_on_logarithmic_scales() -> None:
    sizes = draw_short_sides([64, 100, 300, 2000], "sizes")
    check_svg(sizes)
    assert all(f">{tick}</text>" in sizes for tick in (64, 128, 256, 512, 1024))
    assert ">16</text>" not in sizes
    shapes = draw_aspects([0.5, 1.0, 1.5, 3.0], "shapes")
    check_svg(shapes)
    assert all(f">{tick}</text>" in shapes for tick in ("1:2", "1:1", "3:2", "2:1"))


@pytest.mark.parametrize("values", [[224], [224] * 50])
def test_photos_of_one_size_are_drawn_too(values: list[int]) -> None:
    sizes = draw_short_sides(values, "sizes")
    check_svg(sizes)
    assert ">224</text>" in sizes
    check_svg(draw_aspects([1.0] * len(values), "shapes"))
