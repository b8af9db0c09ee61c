"""What `git add` says of the files that it does not take: a checkpoint goes on without them, and people are told."""

from __future__ import annotations

import re

LEFT_OUT_LIMIT = 20
LOG_LIMIT_BYTES = 16 * 1024
UNREADABLE = "{}: git cannot take it in, so it is neither saved nor in the branch"
FOREIGN = (
    "{0}: a git repository of its own, so its files are neither saved nor in the branch; without {0}/.git they are"
)
SAID = (
    (re.compile(r"^warning: adding embedded git repository: (.+)$", re.MULTILINE), FOREIGN),
    (re.compile(r"^error: '(.+)/' does not have a commit checked out$", re.MULTILINE), FOREIGN),
    (re.compile(r"^error: unable to index file '(.+)'$", re.MULTILINE), UNREADABLE),
    (re.compile(r"^warning: could not open directory '(.+)/': .+$", re.MULTILINE), UNREADABLE),
)


def left_out(log: str) -> tuple[str, ...]:
    """A phrase for each, at most LEFT_OUT_LIMIT of them."""
    phrases = [words.format(name) for said, words in SAID for name in said.findall(log)]
    return tuple(dict.fromkeys(phrases))[:LEFT_OUT_LIMIT]
