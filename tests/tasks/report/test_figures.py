import re
import xml.etree.ElementTree as ET

from tasks.report import figures

COLOUR_LITERAL = re.compile(r"(?:fill|stroke): #\w+")


def check_svg(svg: str) -> None:
    """It is whole, takes its colours from the page, says what it shows, and holds no time."""
    root = ET.fromstring(svg)  # noqa: S314 -- our own
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert not COLOUR_LITERAL.search(svg)
    assert "var(--ink)" in svg or "var(--muted)" in svg
    assert "date" not in svg.lower()


def draw(about: str) -> str:
    with figures.axes_of_size(2, 2) as (figure, axes):
        axes.plot([0, 1 / 3], [0, 2 / 3], color=figures.COLOURS["val"])
        axes.set_xticks([0.125])
        return figures.inline_svg(figure, about)


def test_a_figure_stands_in_the_page() -> None:
    svg = draw('half of "these" <b> & those')
    check_svg(svg)
    assert 'aria-label="half of &#34;these&#34; &lt;b&gt; &amp; those"' in svg
    assert "var(--val)" in svg


def test_coordinates_are_short_and_labels_whole() -> None:
    svg = draw("a line")
    assert not re.search(r'd="[^"]*\.\d{3}', svg)
    assert ">0.125</text>" in svg


def test_the_ids_of_two_figures_differ_and_the_bytes_of_one_do_not() -> None:
    assert draw("one") == draw("one")
    ids = [set(re.findall(r'id="([^"]+)"', draw(about))) for about in ("one", "other")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_long_curve_keeps_its_ends() -> None:
    curve = [(float(n), 0.0) for n in range(1000)]
    thinned = figures.thin(curve, 10)
    assert len(thinned) == 10
    assert (thinned[0], thinned[-1]) == (curve[0], curve[-1])
    assert figures.thin(curve[:3], 10) == curve[:3]


def test_more_classes_than_colours_share_one() -> None:
    assert figures.class_colour(3, 8) == "class-3"
    assert figures.class_colour(3, 9) is None
