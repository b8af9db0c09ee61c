"""What a set-up filled is read as a stranger's."""

from __future__ import annotations

import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.contract import SandboxSpec, SetupFailed
from sandbox.kept import PACKED, new_folder, refuse_secrets, refuse_too_much, size_of, walk
from sandbox.limits import MIB
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


def filled(folder: Path, limit_bytes: int, fill: Callable[[Path], object]) -> None:
    with new_folder(folder) as made:
        fill(folder)
        refuse_too_much(made, limit_bytes)


def test_folders_that_would_exhaust_a_stack_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="deeper than 100"):
        filled(tmp_path / "kept", MIB, lambda folder: deep(folder / "d"))
    remove_tree(tmp_path / "kept")  # pytest's own removal would not come to its end


def test_very_many_files_are_too_much_also_when_they_are_empty(tmp_path: Path) -> None:
    def fill(count: int) -> Callable[[Path], object]:
        return lambda folder: [(folder / str(number)).touch() for number in range(count)]

    filled(tmp_path / "some", MIB, fill(128))
    with pytest.raises(SetupFailed, match="more than the 128 files, in 1 MiB that are kept"):
        filled(tmp_path / "many", MIB, fill(129))


def test_a_folder_that_was_replaced_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "credentials").write_text("not theirs")
    with new_folder(tmp_path / "kept") as made:
        (tmp_path / "kept").rename(tmp_path / "moved")
        (tmp_path / "kept").symlink_to("host")
        refuse_too_much(made, 0)
        with pytest.raises(SetupFailed, match="moved the folder that is /opt/errand"):
            made.path()


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


def test_a_tar_that_announces_a_giant_header_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / PACKED).mkdir()
    header = tarfile.TarInfo("home")
    header.type, header.size = tarfile.XHDTYPE, 64 * MIB
    with (tmp_path / PACKED / "home.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.seek(header.size)
        file.write(b"a-secret-of-the-set-up")
    tracemalloc.start()
    try:
        with pytest.raises(SetupFailed, match="the secret TOKEN in a file of ~,"):
            refuse_secrets(tmp_path, {"TOKEN": "a-secret-of-the-set-up"})
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


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
