"""Nothing that a server says steers the terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.text import clean, one_line, safe_json, tail


@pytest.mark.parametrize(
    ("text", "shown", "reason"),
    [
        ("plain ✓ text", "plain ✓ text", "what is harmless stays"),
        ("\x1b[31mred\x1b[0m", "red", "colours"),
        ("\x1b[2J\x1b[1;1Hhome", "home", "the cursor"),
        ("\x1b]0;title\x07after", "after", "the window's title, ended by BEL"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link", "links, ended by ST"),
        ("\x1b]52;c;aGk=\x07", "", "the clipboard"),
        ("\x1b]0;never ended\nnext", "\nnext", "an unended sequence takes no more than its line"),
        ("\x1bP+q544e\x1b\\x", "x", "device control"),
        ("\x9b31mred", "red", "one-byte CSI"),
        ("\x1b(0lqk", "lqk", "character sets"),
        ("\x1bc", "", "reset"),
        ("a\x1b", "a", "a sequence that was cut off"),
        ("a\x1b[", "a", "a longer one"),
        ("10%\r50%\r100%\n", "100%\n", "progress bars keep their last state"),
        ("dos\r\nlines\r\n", "dos\nlines\n", "line ends"),
        ("a\x08\x00\x07b\x7f", "ab", "controls"),
        ("abc\u202edef\u2066", "abcdef", "the writing direction"),
        ("a\u2028b\u2029c\x85d", "a\nb\nc\nd", "other line ends"),
        ("a\tb", "a    b", "tabs"),
        ("\ud800x", "x", "half a surrogate pair"),
        ("[bold]markup[/]", "[bold]markup[/]", "markup is text"),
    ],
)
def test_text_is_cleaned(text: str, shown: str, reason: str) -> None:
    assert clean(text) == shown, reason


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b[]0;m\r\n\x07\u202e"))))
def test_what_was_cleaned_has_only_printable_characters_and_line_ends(text: str) -> None:
    shown = clean(text)
    assert not any(ord(char) < 32 and char != "\n" for char in shown)
    assert not any(0x7F <= ord(char) < 0xA0 or char in "\u202e\u2028" for char in shown)
    shown.encode()


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_safe_json_is_the_same_value_on_one_line(value: object) -> None:
    safe = safe_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(safe) == value
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in safe)


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [("one", 0, "one"), ("\n\none\ntwo", 0, "one …"), ("abcdef", 4, "abc…"), ("", 0, ""), ("  \n ", 0, "")],
)
def test_one_line_shows_the_first_and_that_there_is_more(text: str, limit: int, shown: str) -> None:
    assert one_line(text, limit) == shown


def test_the_tail_is_the_last_lines_that_say_something() -> None:
    assert tail("a\nb\n\n\x1b[1mc \n\n", 2) == ["b", "c"]
