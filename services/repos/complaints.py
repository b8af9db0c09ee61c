"""What git says when it fails, and what that means to the person who gave the address. Pure.

Git's words are those of the C locale, of git itself, of curl, of ssh and of the host; all of them end up on one stream.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from services.repos.git import Remote

WORDS_LIMIT_CHARS = 300


class Meaning(Struct, frozen=True):
    """A complaint that `pattern` finds, the code of the refusal it becomes (see `Refusal`), and its sentence."""

    pattern: str
    code: str
    sentence: str
    """With {place}, {url} and {words}, git's own reason."""


NO_ENTRY = Meaning(
    r"could not read (Username|Password)|Authentication failed|returned error: 40[13]|Permission denied|Access denied"
    r"|could not be found or you don't have permission|Permission to \S+ denied|[Uu]nauthorized",
    "refused",
    "{place} has no such public repository. If it is private, the owner gives a credential with "
    "`errand host add {place}`, for other users' tasks with `--shared`.",
)
WRONG_CREDENTIAL = "{place} refused the credential that Errand has for it. Renew it with `errand host add {place}`."
NO_ENTRY_FOR_ACCOUNT = (
    "{place} does not let your account do this with {url}: ask for the right to push to it, install the GitHub App on "
    "it, or give a fork's address. If you took the sign-in back there, sign in with GitHub again."
)

# The first that fits counts.
MEANINGS = (
    Meaning(r"No space left on device", "unavailable", "The server's disk is full."),
    Meaning(
        r"dubious ownership", "refused", "{place} belongs to another user of the server than the one Errand runs as."
    ),
    Meaning(
        r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED",
        "refused",
        "{place} shows another ssh host key than before. If that is right, remove its line from Errand's known_hosts.",
    ),
    Meaning(
        r"certificate|CAfile|SSL_ERROR_SSL", "refused", "The TLS certificate of {place} cannot be trusted: {words}"
    ),
    NO_ENTRY,
    Meaning(
        r"Could not resolve|resolve host|Failed to connect|Couldn't connect|No route to host|unreachable|timed out"
        r"|Connection (refused|reset|closed)|Operation too slow|early EOF|hung up unexpectedly|RPC failed|Empty reply"
        r"|transfer closed|returned error: (5|429)",
        "unavailable",
        "{place} cannot be reached right now: {words}",
    ),
    Meaning(
        r"(?i)not found|does not (appear to be a git repository|exist)|no such repository|could not find",
        "not_found",
        "{url} was not found.",
    ),
    Meaning(
        r"transport '.*' not allowed|Protocol .* (not supported|disabled)|returned error: 30\d",
        "refused",
        "{place} redirects to an address that is not allowed: give the repository's own address.",
    ),
)


def explain(command: str, said: str, remote: Remote | None) -> tuple[str, str]:
    """A sentence for a person, and the refusal's code, from what `git command` said about `remote` (None: no remote was
    asked)."""
    words = last_words(said)
    for meaning in MEANINGS:
        if re.search(meaning.pattern, said) and (remote is not None or "{" not in meaning.sentence):
            sentence = _no_entry(remote) if meaning is NO_ENTRY and remote is not None else meaning.sentence
            place, url = (remote.place, remote.url) if remote else ("", "")
            return sentence.format(place=place, url=url, words=words), meaning.code
    if remote is None:
        return f"git {command} failed on the server: {words}", "internal"
    return f"git {command} with {remote.place} failed: {words}", "refused"


def _no_entry(remote: Remote) -> str:
    if remote.is_own_account:
        return NO_ENTRY_FOR_ACCOUNT
    return WRONG_CREDENTIAL if remote.has_credential else NO_ENTRY.sentence


def last_words(said: str) -> str:
    """Git's own reason, on one line: the last that is marked as one, else the last line."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:", "ERROR:"))]
    reason = (reasons or lines or ["it gave no reason"])[-1]
    return "".join(character for character in " ".join(reason.split()) if character.isprintable())[:WORDS_LIMIT_CHARS]
