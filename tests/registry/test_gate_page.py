"""The page shows the verdict, loads nothing, and takes no class or path for markup."""

import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from lineage.schemas import schema
from registry.contest import Contest, Disagreement, Guess
from registry.gate import Entrant, Tally, judge
from registry.gate_page import MOST_TILES, write_page
from registry.records import Answers, SliceResult, Verdict
from tasks import raw
from tasks.image_table import ImageRow
from tasks.params import check_params
from tests.conftest import ROOT

RULES = check_params(ROOT / "params.yaml").gate
HOSTILE = "<script>alert(1)</script>&\u202e\"'"


class Page(HTMLParser):
    """What a browser would make of it: tags, what they would load, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def disagree(tmp_path: Path) -> Callable[[int, int], list[Disagreement]]:
    """Makes photos that only the challenger, and only the champion, recognised."""

    def disagree(only_challenger: int, only_champion: int) -> list[Disagreement]:
        encoded = io.BytesIO()
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(encoded, "JPEG")
        found, records = [], []
        for number in range(only_challenger + only_champion):
            path = f"{number:03}{HOSTILE}.jpg"
            row = ImageRow(id=str(number), path=path, label=HOSTILE, perceptual_hash="0" * 16)
            right, wrong = Guess(HOSTILE, 0.9), Guess("dog", 0.5 + number / 1000)
            pair = (wrong, right) if number < only_challenger else (right, wrong)
            found.append(Disagreement(row, *pair))
            records.append(raw.RawRecord(path, HOSTILE, "", encoded.getvalue()))
        (tmp_path / "raw").mkdir()
        raw.write_shards(records, tmp_path / "raw")
        return found

    return disagree


def test_groups_of_near_duplicates_are_told_where_they_differ_from_photos(tmp_path: Path) -> None:
    verdict = judged((61, 6, 0, 0), [])
    for groups, told in ((6, False), (2, True)):
        write_page(Contest(verdict.model_copy(update={"groups_won": groups}), [], tmp_path / "raw"), tmp_path)
        shown = " ".join(Page((tmp_path / "gate.html").read_text(encoding="utf-8")).text.split())
        assert ("near-duplicates together: counted once, the challenger won 2 and lost 0." in shown) is told


def test_of_many_classes_what_refused_and_the_other_parts_are_shown(tmp_path: Path) -> None:
    classes = [
        SliceResult(by="class", value=f"breed {number:03}", images=50, challenger=50 if number < 99 else 0, champion=50)
        for number in range(100)
    ]
    other = SliceResult(by="photos", value="known to the champion", images=50, challenger=50, champion=50)
    write_page(Contest(judged((50, 10, 0, 0), [*classes, other]), [], tmp_path / "raw"), tmp_path)
    shown = Page((tmp_path / "gate.html").read_text(encoding="utf-8")).text
    assert "known to the champion" in shown
    assert "breed 099" in shown
    assert "breed 000" in shown
    assert "breed 090" not in shown


def judged(answers: tuple[int, int, int, int], slices: list[SliceResult], champion: str | None = "v1.0.0") -> Verdict:
    names = ("both_right", "only_challenger", "only_champion", "both_wrong")
    tally = Tally("test", 4, Answers(**dict(zip(names, answers, strict=True))), slices)
    old = None if champion is None else Entrant(champion, "a" * 64, 9_700_000, 20.0)
    return judge(tally, champion=old, challenger=Entrant("retrain-1", "b" * 64, 9_800_000, 25.0), rules=RULES)


def test_a_refusal_with_names_that_are_markup(
    tmp_path: Path, disagree: Callable[[int, int], list[Disagreement]]
) -> None:
    slices = [
        SliceResult(by="class", value=HOSTILE, images=100, challenger=80, champion=90),
        SliceResult(by="class", value="dog", images=8, challenger=0, champion=8),
    ]
    verdict = judged((80, MOST_TILES + 6, 3, 10), slices)
    write_page(Contest(verdict, disagree(MOST_TILES + 6, 3), tmp_path / "raw"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gate.html", "gate.json"]
    text = (tmp_path / "out/gate.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert len(page.loads) == MOST_TILES + 3
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"base64,[^\"]*", "", text)) == []
    assert "\u202e" not in text
    shown = " ".join(page.text.split())
    assert "v1.0.0 stays the champion" in shown
    assert "refused retrain-1 does not replace the champion" in shown
    assert "Only the challenger is right: 30 photos" in shown
    assert "6 more are not shown" in shown
    assert "Only the champion is right: 3 photos" in shown
    assert shown.index("029<script>") < shown.index("006<script>")  # the surest wrong answers first
    assert "005<script>" not in shown
    rows = re.findall(r'<tr class="(fails|) ?(small|)"><th scope="row">(.*?)</th>', text)
    assert [(fails, small) for fails, small, _ in rows] == [("", ""), ("fails", ""), ("", "small")]
    document = json.loads((tmp_path / "out/gate.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema("verdict")).validate(document)
    assert Verdict.model_validate(document) == verdict


def test_a_win_and_a_first_champion(tmp_path: Path, disagree: Callable[[int, int], list[Disagreement]]) -> None:
    slices = [SliceResult(by="class", value="cat", images=67, challenger=67, champion=61)]
    write_page(Contest(judged((61, 6, 0, 0), slices), disagree(6, 0), tmp_path / "raw"), tmp_path)
    shown = " ".join(Page((tmp_path / "gate.html").read_text(encoding="utf-8")).text.split())
    assert "retrain-1 beats v1.0.0 passed better (1.0000 against 0.9104 on 67 photos" in shown
    assert "Only the champion is right: 0 photos None." in shown

    alone = [SliceResult(by="class", value="cat", images=67, challenger=67, champion=None)]
    write_page(Contest(judged((0, 67, 0, 0), alone, champion=None), [], tmp_path / "raw"), tmp_path)
    shown = " ".join(Page((tmp_path / "gate.html").read_text(encoding="utf-8")).text.split())
    assert "retrain-1 may become the first champion" in shown
    assert "disagree" not in shown
