"""The systemd unit, as systemd itself reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.cli.commands.systemd_unit import quoted, unit
from services.cli.commands.up import is_journal
from services.cli.failure import Failure


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here: apt install systemd")
@pytest.mark.parametrize("folder", ["plain", "with a blank and 50%"])
def test_systemd_takes_the_unit_whatever_the_folders_are_called(tmp_path: Path, folder: str) -> None:
    program = tmp_path / folder / "bin" / "errand"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "errand.service"
    file.write_text(unit("root", tmp_path / folder / "data", tmp_path / folder))
    asked = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stderr) == (0, "")


@pytest.mark.parametrize("folder", ["/srv/$HOME", '/srv/"errand"', "/srv/a\nb", "/srv/a\\b"])
def test_a_folder_that_a_unit_cannot_name_is_refused(folder: str) -> None:
    with pytest.raises(Failure, match="choose a folder"):
        quoted(folder)


def test_the_journal_is_known_by_its_device_and_inode(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        there = os.fstat(out.fileno())
        assert is_journal(out.fileno(), f"{there.st_dev}:{there.st_ino}")
        assert not is_journal(out.fileno(), "1:2")  # inherited by a terminal that systemd started
        assert not is_journal(out.fileno(), "")
