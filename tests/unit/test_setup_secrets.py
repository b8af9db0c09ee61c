"""Secrets of a set-up: given, taken out of texts, and found in whatever writes them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.repo import SecretsLent, SetupFound
from protocol.secret import LIMIT_BYTES, SECRETS_LIMIT, Secret, key_of, wrong_name, wrong_value
from sandbox.secret_values import CHUNK_BYTES, Redactor, find_in_file, forms
from services import envelope
from services.repos.user_secrets import chosen
from services.runner.setup import setup_of

VALUE = "s3cret/with+signs="
AT = datetime(2026, 11, 1, tzinfo=UTC)


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


@pytest.mark.parametrize("name", ["", "TO-KEN", "1TOKEN", "Ä", "TOKEN\n", "T" * 65])
def test_what_is_no_variables_name_is_refused(name: str) -> None:
    assert "such as NPM_TOKEN" in wrong_name(name)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("s3cret", "at least 8 characters"),
        (f"  {'s' * 7}\n", "at least 8 characters"),
        ("with\0in it", "no NUL"),
        ("é" * LIMIT_BYTES, f"at most {LIMIT_BYTES:,} bytes"),
    ],
)
def test_a_value_that_cannot_be_kept_out_is_refused_without_a_word_of_it(value: str, why: str) -> None:
    assert why in wrong_value(value)
    assert value not in wrong_value(value)
    assert (wrong_name("NPM_TOKEN"), wrong_value(VALUE)) == ("", "")


def test_all_secrets_of_a_user_fit_into_one_message() -> None:
    key = envelope.public_key(envelope.make_key())
    sealed = {f"{n:064}": envelope.seal(key, "x", "s" * LIMIT_BYTES) for n in range(SECRETS_LIMIT)}
    assert len(encode(SecretsLent(sealed=sealed))) < MESSAGE_LIMIT_BYTES


async def never() -> dict[str, str]:
    raise AssertionError("asked though there are none")


@pytest.mark.anyio
async def test_another_secret_is_another_input_and_who_has_none_is_not_asked_for_any() -> None:
    inputs = {
        setup_of(SetupFound(inputs="i", script="s", secrets=secrets), "r", ["user"], never).inputs
        for secrets in ("", "one", "two")
    }
    assert len(inputs) == 3
    assert await setup_of(SetupFound(inputs="i", script="s"), "r", ["user"], never).secrets() == {}


def test_the_secret_for_one_repository_comes_before_the_one_for_all() -> None:
    given = [
        Secret(name="TOKEN", sealed="all", set_at=AT),
        Secret(name="TOKEN", sealed="app", set_at=AT, repository="https://HOST/app.git"),
        Secret(name="OTHER", sealed="other", set_at=AT, repository="https://host/other"),
    ]
    known = {key_of(one.name, one.repository): one for one in given}
    for repository, found in (
        ("https://host/app.git", {"TOKEN": "app"}),
        ("https://host/other", {"TOKEN": "all", "OTHER": "other"}),
        ("https://host/app.git/deeper", {"TOKEN": "all"}),
        ("/srv/app", {"TOKEN": "all"}),
    ):
        assert {name: one.sealed for name, one in chosen(known, repository).items()} == found
