"""The pure parts of the exec server: frames, kept output, paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import exec_server
from sandbox.exec_server import HEADER_LIMIT_BYTES, SIZES, FrameError, FrameReader, KeptOutput, Tree, pack


def test_frames_survive_any_cutting_of_the_stream() -> None:
    stream = pack({"op": "a", "id": 1}, b"payload") + pack({"op": "b", "id": 2}) + pack({"op": "c", "id": 3}, b"\0" * 9)
    reader = FrameReader()
    frames = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert frames == list(FrameReader().feed(stream))
    assert [payload for _, payload in frames] == [b"payload", b"", b"\0" * 9]


def test_a_frame_over_a_limit_is_refused_before_it_is_held() -> None:
    with pytest.raises(FrameError):
        list(FrameReader().feed(SIZES.pack(HEADER_LIMIT_BYTES + 1, 0)))
    with pytest.raises(FrameError):
        pack({"op": "x" * HEADER_LIMIT_BYTES})


@pytest.mark.parametrize(
    ("limit", "pieces", "expected"),
    [
        (10, [b"0123456789"], (b"01234", b"56789", 0)),
        (10, [b"0123456789a"], (b"01234", b"6789a", 1)),
        (10, [b"0"] * 3, (b"000", b"", 0)),
        (5, [b"01", b"23", b"45", b"67"], (b"012", b"67", 3)),
        (1, [b"01", b"23"], (b"0", b"", 3)),
        (0, [b"01", b"23"], (b"", b"", 4)),
        (4, [b"%d" % (n % 10) for n in range(100)], (b"01", b"89", 96)),
    ],
)
def test_kept_output_is_head_and_tail(limit: int, pieces: list[bytes], expected: tuple[bytes, bytes, int]) -> None:
    output = KeptOutput(limit)
    for piece in pieces:
        output.add(piece)
    assert output.parts() == expected


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    (work / "folder/file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    for name, target in {
        "in": "folder",
        "absolute": "/workspace/folder",
        "real": str(work / "folder"),
        "out": "..",
        "far": str(tmp_path),
        "loop": "loop",
        "dotted": "folder/../folder/./file",
    }.items():
        (work / name).symlink_to(target)
    return Tree({"/workspace": str(work)})


@pytest.mark.parametrize(
    "path",
    ["folder/file", "/workspace//folder/file", "in/file", "absolute/file", "real/file", "dotted", "in/../folder/file"],
)
def test_a_path_that_stays_inside_is_opened(tree: Tree, path: str) -> None:
    fd = tree.open_for_reading(path)
    assert os.read(fd, 10) == b"inside"
    os.close(fd)


@pytest.mark.parametrize("path", ["../secret", "out/secret", "far/secret", "folder/../../secret", "in/../out/secret"])
def test_a_path_that_leaves_is_refused(tree: Tree, path: str) -> None:
    with pytest.raises(PermissionError):
        tree.open_for_reading(path)


def test_a_loop_of_links_ends(tree: Tree) -> None:
    with pytest.raises(OSError, match="too many"):
        tree.open_for_reading("loop")


def test_no_descriptor_is_left_open(tree: Tree) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("folder/file", "out/secret", "missing/file", "folder", "loop"):
        try:
            os.close(tree.open_for_reading(path))
        except OSError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Looks at the workspace


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    workspace = tmp_path / "watched"
    (workspace / ".git" / "errand").mkdir(parents=True)
    (workspace / "folder").mkdir()
    (workspace / "folder" / "file").write_text("1")
    return workspace


def look(workspace: Path, *skip: str) -> exec_server.Look:
    found = exec_server.Look(str(workspace), str(workspace.parent), list(skip))
    while found.step():
        pass
    return found


def certain(workspace: Path) -> exec_server.Look:
    """Once the clock's tick has passed in which the last file was changed."""
    while not (found := look(workspace)).certain:
        pass
    return found


def test_a_change_that_keeps_size_and_time_is_seen(watched: Path) -> None:
    file = watched / "folder" / "file"
    before, status = certain(watched).print(), file.stat()
    assert look(watched).print() == before
    file.write_text("2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert look(watched).print() != before


def test_what_was_changed_a_moment_ago_may_change_again_unseen_and_is_not_certain(watched: Path) -> None:
    known: dict[str, str] = {}
    for number in range(300):
        text = str(number % 10)
        (watched / "folder" / "file").write_text(text)
        if (found := look(watched)).certain:
            assert known.setdefault(found.print(), text) == text


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("folder/.git/HEAD", "ref: refs/heads/main", "another repository's commit is far from its folder"),
        ("sub/.git", "gitdir: ../.git/modules/sub", "the same of a submodule"),
        (".git/config", "[include]\n\tpath = /tmp/settings", "settings that are elsewhere"),
        (".git/config", "[core]\n\texcludesFile = /tmp/ignored", "the same"),
        ("../.gitconfig", "[Core]\n\tAttributesFile = /tmp/attributes", "the same of the user"),
    ],
)
def test_where_the_times_of_the_workspaces_files_do_not_tell_all_it_says_so(
    watched: Path, path: str, text: str, why: str
) -> None:
    certain(watched)
    (watched / path).parent.mkdir(exist_ok=True)
    (watched / path).write_text(text)
    assert not any(look(watched).certain for _ in range(100)), why


def test_what_is_skipped_and_gits_own_store_change_nothing(watched: Path) -> None:
    (watched / "out").mkdir()
    before = certain(watched).print()
    assert look(watched, "out").print() != before
    skipped = look(watched, "out").print()
    for path in ("out/new", ".git/objects/new", ".git/logs/new", ".git/refs/errand/new", ".git/errand/new"):
        (watched / path).parent.mkdir(parents=True, exist_ok=True)
        (watched / path).write_text("new")
    (watched / ".git" / "refs").rename(watched / ".git" / "errand" / "refs")
    assert look(watched, "out").print() == skipped
    (watched / ".git" / "HEAD").write_text("ref: refs/heads/other")
    assert look(watched, "out").print() != skipped


def test_a_look_ends_at_its_limit_and_says_so(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_server, "LOOK_LIMIT_ENTRIES", 20)
    assert not look(watched).crowded()
    for number in range(30):
        (watched / str(number)).touch()
    found = look(watched)
    assert (found.crowded(), found.certain) == (True, False)
