from pathlib import Path

from tasks.dvc_hash import hash_path


def test_a_file_and_a_folder_have_the_hashes_that_dvc_gives_them(tmp_path: Path) -> None:
    """Both as DVC 3.67 wrote them into the .dvc files of `dvc add`."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "b.txt").write_text("two")
    (tmp_path / "folder" / "inner" / "a.txt").write_text("one")
    assert hash_path(tmp_path / "folder" / "b.txt") == "b8a9f715dbb64fd5c56e7783c6820a61"
    assert hash_path(tmp_path / "folder") == "98dd21eb8a58d7a7ded818c10eb23751.dir"
