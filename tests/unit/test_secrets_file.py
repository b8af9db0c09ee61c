"""Files with a secret in them."""

from __future__ import annotations

from pathlib import Path

from services.secrets_file import write_secret


def test_a_secret_is_this_users_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("an old and longer one")
    path.chmod(0o644)
    (tmp_path / "secret.new").write_text("what a killed process left")
    with path.open() as before:
        write_secret(path, "new")
        assert before.read() == "an old and longer one"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
