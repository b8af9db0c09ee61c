"""Files with a secret in them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.secrets_file import make_secret, write_secret


def test_a_secret_is_this_users_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("an old and longer one")
    path.chmod(0o644)
    with path.open() as before:
        write_secret(path, "new")
        assert before.read() == "an old and longer one"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_writers_side_by_side_do_not_clash_and_one_of_them_wins(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    texts = [str(number) * 100 for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_secret(path, text), texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_that_is_made_once_is_the_same_for_all_who_make_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda number: make_secret(path, f"made by {number}"), range(32)))
    assert found == {path.read_text()}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
