"""Limits as the doctor says them."""

import pytest

from sandbox.limits import GIB, MIB, size_in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (MIB, "1 MiB"),
        (512 * MIB, "512 MiB"),
        (GIB, "1 GiB"),
        (10 * GIB, "10 GiB"),
        (int(17.7 * GIB), "17.7 GiB"),
        (16 * 1024 * GIB - MIB, "16,384 GiB"),
    ],
)
def test_a_size_is_said_as_people_say_it(size: int, words: str) -> None:
    assert size_in_words(size) == words
