import pytest
from markupsafe import Markup

from tasks.words import MINUS, counted, name, name_formats, percent, points, seconds, visible


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.98374), "98.4 %"),
        (percent(1.0), "100.0 %"),
        (percent(2499 / 2500), "99.9 %"),
        (percent(1 / 2500), "0.1 %"),
        (percent(0.0), "0.0 %"),
        (points(0.0163), "+1.6"),
        (points(-0.0163), f"{MINUS}1.6"),
        (points(-0.0001), "0.0"),
        (seconds(2.24), "2.2 s"),
        (seconds(95.3), "95 s"),
        (seconds(1234.0), "21 min"),
        (counted(1, "photo"), "1 photo"),
        (counted(1200, "class", "classes"), "1,200 classes"),
        (name("<b>_\u202ecat"), r"<bdi>&lt;b&gt;_<wbr>\u202ecat</bdi>"),
        (visible("a\u202eb\x00"), "a\\u202eb\\x00"),
        (visible("\x1b[31mred\udce9\n"), r"\x1b[31mred\udce9\n"),
        (visible("na\u00efve \u732b"), "na\u00efve \u732b"),
    ],
)
def test_words(shown: str, expected: str) -> None:
    assert shown == expected


def test_formats_are_in_the_order_in_which_people_look_for_them() -> None:
    assert name_formats({"onnx": 1, "new": 2, "h5": 3, "keras": 4}) == [
        ("Keras", "keras", 4),
        ("HDF5", "h5", 3),
        ("ONNX", "onnx", 1),
        ("new", "new", 2),
    ]


def test_only_the_characters_of_text_are_spelled_out() -> None:
    ours = Markup("<br>\n")
    assert visible(ours) is ours
    assert visible(None) is None
    assert visible(0.5) == 0.5
