"""What a set-up filled is read as a stranger's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.contract import SandboxSpec, SetupFailed
from sandbox.kept import refuse_depth, size_of, walk
from sandbox.owners import Owners
from sandbox.prepared_folders import PreparedFolders
from sandbox.register import Register
from sandbox.removal import remove_tree
from sandbox.setup import Ground


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


def deep(folder: Path) -> Path:
    """As deep as it would exhaust a stack."""
    top = folder
    for _ in range(1_500):
        folder.mkdir(parents=True)
        folder = folder / "d"
    return top


def test_what_a_dead_runner_left_goes_however_deep_it_is(tmp_path: Path) -> None:
    deep(tmp_path / "spares" / "dead" / "workspace")
    Owners(tmp_path, "me").forget_dead()
    assert list((tmp_path / "spares").iterdir()) == []


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(Owners(tmp_path, "me"), "bubblewrap", lease_seconds=60)


@pytest.fixture
async def folders(tmp_path: Path, register: Register) -> PreparedFolders:
    """With one that is kept."""
    folders = PreparedFolders(tmp_path / "prepared", register)
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "file").write_bytes(b"123")
    await folders.keep("abc", Ground("", ""), tmp_path / "left", "https://host/app")
    return folders


@pytest.mark.anyio
async def test_what_a_sandbox_uses_is_not_removed_also_when_who_started_it_was_killed(
    folders: PreparedFolders, register: Register, tmp_path: Path
) -> None:
    """Its lock has ended with that runner."""
    before = Register(Owners(tmp_path, "killed"), "bubblewrap", lease_seconds=60)
    before.client(SandboxSpec(task="t", attempt=1, workspace=tmp_path, image="abc"), "key")
    assert not await folders.remove("abc")
    before.remove("key")
    assert await folders.remove("abc")
    assert (await folders.kept(), list((tmp_path / "prepared").iterdir())) == ({}, [])


@pytest.mark.anyio
async def test_what_was_half_kept_or_half_removed_is_none_and_goes(folders: PreparedFolders, tmp_path: Path) -> None:
    deep(tmp_path / "prepared" / "abc.0123.left")
    deep(tmp_path / "prepared" / "def.4567.left.3")
    let_go = folders.use("abc")
    assert await folders.kept() == {"abc": 3}
    assert [path.name for path in (tmp_path / "prepared").glob("*.left*")] == ["abc.0123.left"], "its lock is held"
    let_go()
    assert await folders.kept() == {"abc": 3}
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir() if path.is_dir()) == ["abc.kept"]
