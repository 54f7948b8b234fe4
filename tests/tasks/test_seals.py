"""Seals: what is not as it was written is named, and which file it is."""

from pathlib import Path

import pytest

from tasks import seals, stage
from tasks.stage import SEAL, PawlineError


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    for name in ("a.npy", "b.npy", "c.json"):
        (tmp_path / name).write_bytes(name.encode())
    seals.seal(tmp_path, {"a.npy": seals.digest_of(tmp_path / "a.npy")})
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(PawlineError) as error:
        seals.check(folder)
    return str(error.value)


def test_what_was_written_is_taken(sealed: Path) -> None:
    assert seals.check(sealed) == stage.read_json(sealed / SEAL)
    assert seals.check(sealed).keys() == {"a.npy", "b.npy", "c.json"}


def test_a_file_that_changed_went_or_came_is_named(sealed: Path) -> None:
    (sealed / "b.npy").write_bytes(b"B.npy")
    assert refusal(sealed).startswith(f"{sealed / 'b.npy'} is damaged (not what was written): `pawline verify`")
    assert seals.check(sealed, lambda name: name != "b.npy").keys() == {"a.npy", "c.json"}, "it is not looked at"
    (sealed / "b.npy").unlink()
    assert refusal(sealed).startswith(f"{sealed / 'b.npy'} is damaged (missing)")
    (sealed / "b.npy").write_bytes(b"b.npy")
    (sealed / "d.npy").touch()
    assert refusal(sealed).startswith(f"{sealed / 'd.npy'} is damaged (of another run: ")


def test_a_damaged_seal_is_named(sealed: Path) -> None:
    for content in ("", "[]", "{"):
        (sealed / SEAL).write_text(content)
        assert refusal(sealed).startswith(f"{sealed / SEAL} is damaged (")


def test_a_folder_without_a_seal_is_taken_as_it_is(sealed: Path) -> None:
    (sealed / SEAL).unlink()
    (sealed / "b.npy").write_bytes(b"B.npy")
    assert seals.check(sealed)["b.npy"] == seals.digest_of(sealed / "b.npy")
