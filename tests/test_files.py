"""Writing whole or not at all."""

import os
import stat

import pytest

from gatelens.models import InvalidInputError
from gatelens.models.files import replacing_file, replacing_folder


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    """The old file stays until the block ends well; then the new one is there and nothing beside it."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with replacing_file(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == path.parent
        assert beside.suffix == ".html"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_stays_when_the_block_fails(tmp_path, exists):
    """After an error the old file is as it was, or there is none, and nothing is left beside it."""
    path = tmp_path / "report.html"
    if exists:
        path.write_text("old")

    def write():
        with replacing_file(path) as beside:
            beside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == (["old"] if exists else [])


def test_a_folder_is_replaced_when_the_block_ends(tmp_path):
    """The old folder stays until the block ends well; then only the new one's files are there."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with replacing_folder(path) as beside:
        (beside / "new").write_text("new")
        assert (path / "old").exists()
    assert {entry.name: entry.read_text() for entry in path.iterdir()} == {"new": "new"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_stays_when_the_block_fails(tmp_path, exists):
    """After an error the old folder is as it was, or there is none, and nothing is left beside it."""
    path = tmp_path / "model"
    if exists:
        path.mkdir()
        (path / "old").write_text("old")

    def write():
        with replacing_folder(path) as beside:
            (beside / "new").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert list(tmp_path.iterdir()) == ([path] if exists else [])
    if exists:
        assert [entry.name for entry in path.iterdir()] == ["old"]


def test_a_folder_comes_back_when_the_rename_fails(tmp_path, monkeypatch):
    """If the new folder cannot take its place at the last moment, the old one is put back."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    rename = type(path).rename

    def refuse_new(self, goal):
        if goal == path and not self.name.endswith(".old"):
            raise OSError("no")
        return rename(self, goal)

    monkeypatch.setattr(type(path), "rename", refuse_new)
    with pytest.raises(OSError, match="no"), replacing_folder(path) as beside:
        (beside / "new").write_text("new")
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_permissions(tmp_path, mask, file_mode, folder_mode):
    """Files and folders get the permissions of the umask, not the private ones of temporary files."""
    before = os.umask(mask)
    try:
        with replacing_file(tmp_path / "file") as beside:
            beside.write_text("x")
        with replacing_folder(tmp_path / "folder") as beside:
            (beside / "file").write_text("x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == file_mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == folder_mode
    assert stat.S_IMODE((tmp_path / "folder" / "file").stat().st_mode) == file_mode


def test_missing_parents_are_made(tmp_path):
    """Folders on the way are made."""
    with replacing_file(tmp_path / "a" / "b" / "file") as beside:
        beside.write_text("x")
    with replacing_folder(tmp_path / "c" / "d"):
        pass
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"
    assert (tmp_path / "c" / "d").is_dir()


def test_refusals(tmp_path):
    """A folder where a file is meant, a file where a folder is meant, and a file on the way are refused as such."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InvalidInputError, match="folder is a folder; expected a file's name"),
        replacing_file(tmp_path / "folder"),
    ):
        pass
    with (
        pytest.raises(InvalidInputError, match="file is a file; expected a folder's name"),
        replacing_folder(tmp_path / "file"),
    ):
        pass
    for replacing in (replacing_file, replacing_folder):
        with (
            pytest.raises(InvalidInputError, match=r"the folder .*file cannot be made"),
            replacing(tmp_path / "file" / "below"),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_parent_that_cannot_be_written(tmp_path, monkeypatch):
    """A folder without write permission is refused before anything is made."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    for replacing in (replacing_file, replacing_folder):
        with (
            pytest.raises(InvalidInputError, match="cannot be written to; choose another place"),
            replacing(tmp_path / "x"),
        ):
            pass
    assert list(tmp_path.iterdir()) == []
