"""Secrets of a set-up: given, taken out of texts, and found in whatever writes them."""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.contract import SandboxError
from sandbox.secret_values import CHUNK_BYTES, Redactor, check_secrets, find_in_file, forms
from services.runner.setup import read_secrets

VALUE = "s3cret/with+signs="
REPOSITORY = "https://host/app"


@given(text=st.text("s3cret/wihgn+=x", max_size=60), cuts=st.lists(st.integers(0, 80), max_size=4))
def test_a_secret_is_taken_out_wherever_the_text_is_cut(text: str, cuts: list[int]) -> None:
    whole = f"{text}{VALUE}{text}"
    redactor = Redactor({"TOKEN": VALUE})
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    shown = "".join(redactor.feed(whole[a:b]) for a, b in pairwise(places)) + redactor.rest()
    assert VALUE not in shown
    assert "[TOKEN]" in shown


@given(cuts=st.lists(st.integers(0, 40), max_size=4))
def test_of_a_secret_that_begins_like_another_nothing_is_shown(cuts: list[int]) -> None:
    whole = "so: abcdefghijkl, abcdefgh."
    redactor = Redactor({"SHORT": "abcdefgh", "LONG": "abcdefghijkl"})
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    shown = "".join(redactor.feed(whole[a:b]) for a, b in pairwise(places)) + redactor.rest()
    assert shown == "so: [LONG], [SHORT]."


@given(before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_a_secret_is_found_within_base64_wherever_it_begins(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + VALUE.encode() + after)
    assert any(form in text for form in forms({"TOKEN": VALUE}))


def test_a_secret_is_found_as_it_may_be_written_and_over_the_end_of_a_chunk(tmp_path: Path) -> None:
    searched = forms({"TOKEN": VALUE, "KEY": "-----BEGIN\nmiddle-of-the-key\nEND"})
    for data, offset, name in (
        (bytes(CHUNK_BYTES - 3) + VALUE.encode(), CHUNK_BYTES - 3, "TOKEN"),
        (b"https://u:" + quote(VALUE, safe="").encode(), 10, "TOKEN"),
        (b'"middle-of-the-key"', 1, "KEY"),
    ):
        (tmp_path / "file").write_bytes(data)
        assert find_in_file(tmp_path / "file", searched) == (offset, name)
    (tmp_path / "file").write_bytes(bytes(3 * CHUNK_BYTES))
    assert find_in_file(tmp_path / "file", searched) is None


def test_names_and_values_that_cannot_be_kept_out_are_refused() -> None:
    check_secrets({"TOKEN": VALUE})
    for secrets in ({"TOKEN": "short"}, {"TO-KEN": VALUE}, {"TOKEN": "with\0in it"}):
        with pytest.raises(ValueError, match="TO"):
            check_secrets(secrets)


def test_the_operators_file_is_read_for_one_repository_and_its_faults_tell_no_value(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    assert read_secrets("", REPOSITORY) == {}
    file.touch(0o600)
    file.write_text(f'["{REPOSITORY}"]\nTOKEN = "{VALUE}"\n["https://host/other"]\nTOKEN = "another-one"\n')
    assert read_secrets(str(file), REPOSITORY) == {"TOKEN": VALUE}
    assert read_secrets(str(file), "https://host/third") == {}
    for text in (f'["{REPOSITORY}"]\nTOKEN = {VALUE}', f'["{REPOSITORY}"]\nTOKEN = 7', f'TOKEN = "{VALUE}"'):
        file.write_text(text)
        with pytest.raises(SandboxError, match="ERRAND_SETUP_SECRETS") as failure:
            read_secrets(str(file), REPOSITORY)
        assert VALUE not in str(failure.value)
    file.chmod(0o640)
    with pytest.raises(SandboxError, match="chmod 600"):
        read_secrets(str(file), REPOSITORY)
    with pytest.raises(SandboxError, match="cannot be read"):
        read_secrets(str(tmp_path / "missing"), REPOSITORY)
