"""No write makes a folder again that has vanished while it was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import check_folder, make_folder, must_stay


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "parent" / "r"
    folder.mkdir(parents=True)
    (folder / "mark").write_text("mine")
    return folder


def deleted(root: Path) -> None:
    shutil.rmtree(root)


def moved(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def parent_moved(root: Path) -> None:
    root.parent.rename(root.parent.with_name("elsewhere"))


def unmounted(root: Path) -> None:
    """The mount point stays, and is empty."""
    deleted(root)
    root.mkdir()


def of_another_run(root: Path) -> None:
    unmounted(root)
    (root / "mark").write_text("of another")


VANISH = (deleted, moved, parent_moved, unmounted, of_another_run)


def stayed(root: Path, body: Callable[[], None], mark: str | None = "mark") -> None:
    """Run the body inside the block, which must end with the error."""
    with pytest.raises(RunError, match="has vanished"):  # noqa: SIM117
        with must_stay(root, None if mark is None else root / mark):
            body()


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("vanish", VANISH)
def test_nothing_is_written_into_what_has_vanished(vanish, root, tmp_path):
    left = set()

    def body():
        write_atomically(root / "a" / "b" / "first", "x")
        vanish(root)
        left.update(files(tmp_path))
        for path in (root / "second", root / "a" / "b" / "third", root / "c" / "fourth"):
            with pytest.raises(RunError, match="has vanished"):
                write_atomically(path, "x")
            with pytest.raises(RunError, match="has vanished"):
                make_folder(path.parent)
        with pytest.raises(RunError, match="has vanished"):
            check_folder(root / "a")
        # What does not belong to it can be written.
        write_atomically(tmp_path / "other" / "file", "x")

    stayed(root, body)
    assert files(tmp_path) == left | {tmp_path / "other" / "file"}
    if vanish in (deleted, moved, parent_moved):
        assert not root.exists()


def test_whatever_fails_has_failed_for_that(root):
    def body():
        deleted(root)
        raise UsageError("SAVE_PATH", root, "holds no results")

    stayed(root, body)
    stayed(root, lambda: pytest.fail("the block must not begin"))


def test_a_folder_without_a_mark_is_watched_too(root):
    def body():
        deleted(root)
        write_atomically(root / "page.html", "x")

    stayed(root, body, mark=None)
    assert not root.exists()


def test_outside_of_the_block_folders_are_made(root):
    with must_stay(root, root / "mark"):
        write_atomically(root / "a", "x")
        # Whose error it is stays as it is.
        with pytest.raises(KeyError), must_stay(root):
            raise KeyError("x")
        write_atomically(root / "new" / "b", "x")
    deleted(root)
    write_atomically(root / "a", "x")
    assert (root / "a").read_text() == "x"


def test_a_link_to_the_folder_is_the_folder(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)

    def body():
        deleted(root)
        for path in (root / "x" / "file", link / "x" / "file"):
            with pytest.raises(RunError, match="has vanished"):
                write_atomically(path, "x")

    stayed(link, body)
    assert not root.exists()


def test_a_folder_that_vanishes_just_before_its_subfolder_is_made(root, monkeypatch):
    """Between the check and the write."""
    monkeypatch.setattr("neurosurgery.common.folders.check_folder", lambda path: None)
    with must_stay(root, root / "mark"):
        deleted(root)
        with pytest.raises(FileNotFoundError):
            make_folder(root / "a" / "b")
        with pytest.raises(RunError, match="cannot be written"):
            write_atomically(root / "file", "x")
    assert not root.exists()
