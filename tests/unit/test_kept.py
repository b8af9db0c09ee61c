"""What a set-up filled is read as a stranger's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.contract import SetupFailed
from sandbox.kept import refuse_depth, size_of, walk
from services.repos.removal import remove_tree


def test_all_is_met_once_a_folder_before_what_is_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "file").write_bytes(b"1234")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "z").write_bytes(b"12")
    assert [str(path.relative_to(tmp_path)) for path, _ in walk(tmp_path)] == ["a", "b", "b/c", "b/c/file", "z"]
    assert size_of(tmp_path) == 6


def test_folders_that_would_exhaust_a_stack_are_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = top = tmp_path / "kept"
    for _ in range(1_800):
        folder.mkdir()
        folder = folder / "d"
    assert size_of(top) == 0
    with pytest.raises(SetupFailed, match="deeper than 100"):
        refuse_depth(top)
    remove_tree(top)  # pytest's own removal would not come to its end
