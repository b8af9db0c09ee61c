"""Text as people give it: an argument, or stdin for `-`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from services.cli.failure import Failure


def given(argument: str) -> str:
    """`argument`, or what stdin has where it is `-`. Raises Failure for what is not UTF-8."""
    return from_stdin() if argument == "-" else argument


def from_stdin() -> str:
    try:
        text = sys.stdin.read()
        text.encode()  # some locales read such bytes as lone surrogates
    except UnicodeError:
        raise Failure("This is not UTF-8: `iconv -f ISO-8859-1 -t UTF-8`, say, before the `|` makes it so.") from None
    return text


def must_be_utf_8(arguments: Sequence[str]) -> None:
    """Raises Failure for an argument that is not UTF-8: no message could carry it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeError:
            raise Failure(f"This is not UTF-8: {argument[:80]!r}.") from None
