"""Two image tables, compared photo by photo."""

from pathlib import Path

from lineage.photo_changes import PhotoChange, PhotoChanges, photo_changes, raw_changes
from tasks.image_table import ImageRow, write_images
from tasks.raw import RawRecord, shard_paths, write_shards


def table(folder: Path, *rows: ImageRow) -> bytes:
    path = folder / "images.parquet"
    write_images(rows, path)
    return path.read_bytes()


def row(image_id: str, path: str, *, reason: str = "", split: str = "train") -> ImageRow:
    return ImageRow(id=image_id, path=path, label=path.split("/")[0], reason=reason, split="" if reason else split)


def counts(changes: PhotoChanges) -> dict[str, int]:
    return {name: len(value) for name, value in changes if value}


def test_every_kind_of_change_is_told_apart(tmp_path: Path) -> None:
    before = table(
        tmp_path,
        row("same", "cat/1.jpg"),
        row("gone", "cat/2.jpg"),
        row("relabelled", "cat/3.jpg"),
        row("moved", "cat/4.jpg"),
        row("bad", "cat/5.jpg"),
        row("good", "cat/6.jpg", reason="blank"),
        row("other reason", "cat/7.jpg", reason="blank"),
        row("renamed", "cat/8.jpg"),
    )
    after = table(
        tmp_path,
        row("same", "cat/1.jpg"),
        row("new", "dog/2.jpg"),
        row("relabelled", "dog/3.jpg"),
        row("moved", "cat/4.jpg", split="val"),
        row("bad", "cat/5.jpg", reason="truncated"),
        row("good", "cat/6.jpg"),
        row("other reason", "cat/7.jpg", reason="too_small"),
        row("renamed", "cat/9.jpg"),
    )
    changes = photo_changes(before, after)
    assert changes.added == [PhotoChange(id="new", path="dog/2.jpg", before=None, after="dog, train")]
    assert changes.removed == [PhotoChange(id="gone", path="cat/2.jpg", before="cat, train", after=None)]
    assert changes.relabelled == [PhotoChange(id="relabelled", path="dog/3.jpg", before="cat", after="dog")]
    assert changes.moved == [PhotoChange(id="moved", path="cat/4.jpg", before="train", after="val")]
    assert changes.quarantined == [
        PhotoChange(id="bad", path="cat/5.jpg", before="kept", after="truncated"),
        PhotoChange(id="other reason", path="cat/7.jpg", before="blank", after="too_small"),
    ]
    assert changes.taken_back == [PhotoChange(id="good", path="cat/6.jpg", before="blank", after="kept")]
    assert [(change.before, change.after) for change in changes.renamed] == [
        ("cat/8.jpg", "cat/9.jpg"),
        ("cat/3.jpg", "dog/3.jpg"),
    ]


def test_exact_duplicates_are_paired_by_path_then_by_label_and_verdict(tmp_path: Path) -> None:
    """One photo in three files: the first goes, so the second is taken back; the third moves to another folder."""
    before = table(
        tmp_path,
        row("x", "cat/1.jpg"),
        row("x", "cat/2.jpg", reason="exact_duplicate"),
        row("x", "cat/3.jpg", reason="exact_duplicate"),
    )
    after = table(tmp_path, row("x", "cat/2.jpg"), row("x", "cat/new/3.jpg", reason="exact_duplicate"))
    changes = photo_changes(before, after)
    assert [change.path for change in changes.taken_back] == ["cat/2.jpg"]
    assert [change.path for change in changes.removed] == ["cat/1.jpg"]
    assert counts(changes) == {"taken_back": 1, "renamed": 1, "removed": 1}

    label_first = photo_changes(
        table(tmp_path, row("x", "dog/1.jpg")), table(tmp_path, row("x", "cat/1.jpg"), row("x", "dog/2.jpg"))
    )
    assert counts(label_first) == {"added": 1, "renamed": 1}, "a copy under another label is added, none is relabelled"


def test_the_same_tables_differ_in_nothing_and_long_lists_are_cut_on_the_terminal_only(tmp_path: Path) -> None:
    many = table(tmp_path, *(row(f"{number:03}", f"cat/{number:03}.jpg") for number in range(30)))
    same = photo_changes(many, many)
    assert same.is_empty
    assert same.lines() == ["the same photos, with the same labels, splits and verdicts"]
    removed = photo_changes(many, table(tmp_path))
    assert [change.path for change in removed.removed] == [f"cat/{number:03}.jpg" for number in range(30)]
    assert len(removed.lines(limit=4)) == 1 + 4 + 1
    assert removed.lines(limit=4)[-1] == "  ... and 26 more"


def test_raw_tables_are_compared_by_content(tmp_path: Path) -> None:
    for name, photos in {"a": {"cat/1": b"1", "cat/2": b"2"}, "b": {"cat/1": b"new", "dog/2": b"2"}}.items():
        (tmp_path / name).mkdir()
        write_shards((RawRecord(path, path[:3], "", content) for path, content in photos.items()), tmp_path / name)
    changes = raw_changes(shard_paths(tmp_path / "a"), shard_paths(tmp_path / "b"))
    assert changes.summary() == "1 added, 1 removed, 1 renamed, 1 relabelled"
