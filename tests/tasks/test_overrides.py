"""A person's verdicts."""

import re

import pytest

from tasks.image_table import ImageRow
from tasks.overrides import apply_overrides, parse_keep
from tasks.stage import PawlineError
from tests.tasks.rows import id_of, photo


def overridden(rows: list[ImageRow], *, keep: tuple[str, ...] = (), reject: tuple[str, ...] = ()) -> list[ImageRow]:
    return apply_overrides(rows, keep=parse_keep(keep), reject=reject)


def test_rejected_whatever_the_rules_say() -> None:
    rows = overridden([photo("1"), photo("2", reason="blank"), photo("3")], reject=(id_of("1"), id_of("2")))
    assert [row.reason for row in rows] == ["rejected", "rejected", ""]


@pytest.mark.parametrize("reason", ["too_small", "blank", "animated"])
def test_kept_whatever_the_rules_say(reason: str) -> None:
    (row,) = overridden([photo("1", reason=reason, evidence="seen")], keep=(id_of("1"),))
    assert (row.reason, row.evidence) == ("", f"kept by a person; otherwise {reason}: seen")


def test_keeping_what_is_kept_changes_nothing() -> None:
    assert overridden([photo("1")], keep=(id_of("1"),)) == [photo("1")]


@pytest.mark.parametrize(
    "reason", ["empty", "not_an_image", "truncated", "undecodable", "too_large", "crashes_decoder"]
)
def test_what_does_not_decode_cannot_be_kept(reason: str) -> None:
    message = rf"validate.keep: bad.jpg cannot be kept \({reason}: seen\): remove {id_of('bad.jpg')}"
    with pytest.raises(PawlineError, match=message):
        overridden([photo("bad.jpg", reason=reason, evidence="seen")], keep=(id_of("bad.jpg"),))


@pytest.mark.parametrize("key", ["keep", "reject"])
def test_an_id_must_match_a_file(key: str) -> None:
    keep, reject = (("abc",), ()) if key == "keep" else ((), ("abc",))
    with pytest.raises(PawlineError, match=rf"validate.{key}: no file has the id abc: an id is the SHA-256"):
        overridden([photo("1")], keep=keep, reject=reject)


def test_an_id_stands_in_one_list_only() -> None:
    with pytest.raises(PawlineError, match=f"both list {id_of('1')}"):
        overridden([photo("1")], keep=(id_of("1"),), reject=(id_of("1"),))


def test_a_label_conflict_needs_the_label() -> None:
    rows = [photo("1", content="x"), photo("2", content="x", label="dog")]
    choices = re.escape(f"say which, {id_of('x')}:cat or {id_of('x')}:dog")
    with pytest.raises(PawlineError, match=choices):
        overridden(rows, keep=(id_of("x"),))
    assert overridden(rows, keep=(f"{id_of('x')}:dog",)) == rows  # tasks.duplicates then decides for dog


def test_the_label_must_be_one_of_the_files() -> None:
    with pytest.raises(PawlineError, match="is not under 'bird' but under cat"):
        overridden([photo("1")], keep=(f"{id_of('1')}:bird",))
