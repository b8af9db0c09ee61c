"""A workspace becomes its task's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from sandbox.folders import TASK_UIDS, give
from sandbox.removal import remove_tree

UID = TASK_UIDS.start
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away: sudo python -m pytest")


@root
def test_all_of_a_tree_is_given_but_what_has_another_name_and_what_a_link_leads_to(tmp_path: Path) -> None:
    mirror, workspace = tmp_path / "object", tmp_path / "workspace"
    mirror.write_text("shared")
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "a" / "b" / "file").touch()
    (workspace / "a" / "same").hardlink_to(mirror)
    (workspace / "link").symlink_to(mirror)
    give(workspace, UID)
    given = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.lstat().st_uid == UID}
    assert given == {"workspace", "workspace/a", "workspace/a/b", "workspace/a/b/file", "workspace/link"}


@root
def test_a_tree_deeper_than_a_process_has_descriptors_is_given_too(tmp_path: Path) -> None:
    folder = workspace = tmp_path / "w"
    for _ in range(1_500):
        folder.mkdir()
        folder = folder / "d"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        give(workspace, UID)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (folder.parent.stat().st_uid, workspace.stat().st_uid) == (UID, UID)
    remove_tree(workspace)
