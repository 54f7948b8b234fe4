"""Folders to labels and splits."""

import pytest

from tasks.sources.layout import Place, find_layout, label_of, left_out
from tasks.stage import PawlineError


def places(*paths: str) -> list[Place | None]:
    layout = find_layout(paths, "photos")
    return [layout.place(path) for path in paths]


def test_the_top_folder_is_the_class_and_deeper_folders_belong_to_it() -> None:
    assert places("Cat/1.jpg", "Cat/indoor/2.jpg", " Dog /3.jpg") == [
        Place("cat", ""),
        Place("cat", ""),
        Place("dog", ""),
    ]


def test_shared_folders_are_stripped() -> None:
    assert places("data/PetImages/Cat/1.jpg", "data/PetImages/Dog/1.jpg") == [Place("cat", ""), Place("dog", "")]


@pytest.mark.parametrize(
    ("folder", "split"), [("Training", "train"), ("valid", "val"), ("VALIDATION", "val"), ("testing", "test")]
)
def test_split_folders_are_predefined_splits(folder: str, split: str) -> None:
    found = places("x/train/cat/1.jpg", "x/train/dog/1.jpg", f"x/{folder}/cat/2.jpg")
    assert found == [Place("cat", "train"), Place("dog", "train"), Place("cat", split)]


def test_one_folder_that_is_no_split_makes_all_of_them_classes() -> None:
    assert places("train/1.jpg", "truck/1.jpg") == [Place("train", ""), Place("truck", "")]


def test_two_split_folders_beside_another_are_refused() -> None:
    with pytest.raises(PawlineError, match=r"split folders \(test, train\) beside other folders \(extra\): name every"):
        places("train/cat/1.jpg", "test/cat/1.jpg", "extra/1.jpg")


def test_a_class_name_with_a_line_break_is_refused() -> None:
    with pytest.raises(PawlineError, match="control character in its name"):
        places("cat\nbig/1.jpg", "dog/1.jpg")


def test_images_beside_the_class_folders_have_no_place() -> None:
    assert places("logo.jpg", "PetImages/cover.jpg", "PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg")[:2] == [None, None]
    assert places("train/cat/1.jpg", "val/dog/1.jpg", "val/2.jpg", "3.jpg")[2:] == [None, None]


def test_labels_differ_neither_by_case_nor_by_spelling_of_accents() -> None:
    assert label_of(" Cafe\u0301 ") == label_of("CAF\u00c9") == "caf\u00e9"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "photos holds no images"),
        (["1.jpg", "2.jpg"], "images but no class folders"),
        (["PetImages/Cat/1.jpg"], "one class only, 'cat'"),
        (["cat/1.jpg", "cat/extra/2.jpg"], "one class only, 'cat'"),
        (["Cat/1.jpg", "cat/2.jpg"], "one class only, 'cat'"),
        (["train/cat/1.jpg", "val/cat/1.jpg"], "one class only, 'cat'"),
        (["train/1.jpg", "val/1.jpg"], r"split folders \(train, val\) without class folders"),
    ],
)
def test_what_cannot_be_classified_is_refused(paths: list[str], message: str) -> None:
    with pytest.raises(PawlineError, match=message):
        find_layout(paths, "photos")


@pytest.mark.parametrize("name", ["1.JPG", "1.jfif", "666", "a b'\"<i>.png", "1.old.webp", "x.HEIC"])
def test_candidates_by_name(name: str) -> None:
    assert left_out(f"Cat/{name}") == ""


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("Cat/.DS_Store", "hidden or system"),
        ("Cat/._1.jpg", "hidden or system"),
        ("__MACOSX/Cat/1.jpg", "hidden or system"),
        ("Cat/Thumbs.db", "hidden or system"),
        ("Cat/desktop.ini", "hidden or system"),
        ("readme[1].txt", "not named as an image"),
        ("MSR-LA - 3467.docx", "not named as an image"),
    ],
)
def test_no_candidates_by_name(path: str, reason: str) -> None:
    assert left_out(path) == reason
