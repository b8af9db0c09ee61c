"""What a client sends, checked before it becomes a command. Pure; each check raises Problem with the field and what to
do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from gateway.errors import Problem
from protocol import secret as setup_secret
from protocol.ids import KEY_LIMIT_BYTES, is_name
from protocol.live import Submit
from protocol.marks import wrong_metadata, wrong_tags
from protocol.repo import normal_host
from protocol.rules import PATTERN_LIMIT_CHARS, RULED_TOOLS, Rule, too_many
from protocol.task import (
    LABELS_LIMIT,
    PRIORITY_LIMIT,
    REPOSITORY_LIMIT_CHARS,
    WAIT_LIMIT_SECONDS,
    Budget,
)
from protocol.texts import wrong_text
from protocol.user import NAME_LIMIT_CHARS, Settings
from services.envelope import SECRET_LIMIT_BYTES

BASE_LIMIT_CHARS = 250
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")
TITLE_LIMIT_CHARS = 200
REASON_LIMIT_CHARS = 2_000
KEY = re.compile(rf"[!-~]{{1,{KEY_LIMIT_BYTES}}}")
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/]*)@)?(?P<rest>.*)")
SHORT = re.compile(r"(?P<user>[^/@]*)@")
"""git's short form of an ssh URL, `user@host:path`."""
NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|\.$|/$|^/|^-|^@$")
"""What no branch, tag or commit has in its name: git-check-ref-format(1)."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_URL = re.compile(r" |^-|[@:/]--|[@:]-|://-|^[A-Za-z0-9+._-]*::")
"""Spaces; options and hosts that begin with a dash, which git and ssh take for options
(CVE-2017-1000117 and its kin); `ext::` and other helpers, which run commands."""


def submit(frame: Submit, *, is_owner: bool) -> Submit:
    """A task before it is submitted, as it is kept."""
    key(frame.key)
    prompt = text(frame.prompt, "prompt")
    if frame.fork_of and (frame.repository or frame.base):
        raise Problem(422, "A fork starts from the other task's work: leave repository and base out.", "fork_of")
    if not frame.fork_of:
        repository(frame.repository, is_owner=is_owner)
    base(frame.base)
    if frame.model and not MODEL.fullmatch(frame.model):
        raise Problem(422, "This is no model's name: leave it out for the default.", "model")
    if len(frame.title) > TITLE_LIMIT_CHARS or CONTROL.search(frame.title):
        raise Problem(422, f"A title is one line of at most {TITLE_LIMIT_CHARS} characters.", "title")
    budget(frame.budget)
    queue(frame.queue)
    labels(frame.labels)
    priority(frame.priority)
    rules(frame.rules)
    marks(frame.tags, frame.metadata)
    start(frame.start_at)
    duration(frame.queue_seconds, "queue_seconds")
    duration(frame.turn_seconds, "turn_seconds")
    return replace(frame, prompt=prompt, title=frame.title.strip())


def marks(tags: Iterable[str], metadata: Mapping[str, str | None]) -> None:
    if wrong := wrong_tags(tags):
        raise Problem(422, wrong, "tags")
    if wrong := wrong_metadata({name: value or "" for name, value in metadata.items()}):
        raise Problem(422, wrong, "metadata")


def key(value: str) -> None:
    if not KEY.fullmatch(value):
        raise Problem(422, f"A key is 1 to {KEY_LIMIT_BYTES} visible ASCII characters: a UUID, for example.", "key")


def text(value: str, field: str) -> str:
    """A prompt, a message or an answer, as it is kept: every line ends as elsewhere, for a terminal takes a lone CR to
    write over what stands before it."""
    if wrong := wrong_text(value, field):
        raise Problem(422, wrong, field)
    return value.replace("\r\n", "\n").replace("\r", "\n")


def reason(value: str) -> str:
    if len(value) > REASON_LIMIT_CHARS:
        raise Problem(422, f"A reason has at most {REASON_LIMIT_CHARS} characters.", "reason")
    return value


def repository(value: str, *, is_owner: bool) -> None:
    """What may under no circumstances become a command, also while the repos service, which knows more, is away."""
    if not value.strip():
        raise Problem(422, "The repository is missing: give a git URL.", "repository")
    if len(value) > REPOSITORY_LIMIT_CHARS:
        raise Problem(422, f"A repository's URL has at most {REPOSITORY_LIMIT_CHARS} characters.", "repository")
    is_path = value.startswith("/") or value.lower().startswith("file:")
    if CONTROL.search(value) or (NO_URL.search(value) and not is_path):
        raise Problem(422, "This is no repository's URL: it looks like https://host/owner/name.git.", "repository")
    if is_path and not is_owner:
        raise Problem(422, "Only the owner may use a path on the server: give a git URL.", "repository")
    # What is in a URL ends up in events, logs and pushes; a credential never may.
    if ":" in _user_of(value):
        advice = "Leave the password out of the URL: the owner gives it by `errand host add`."
        raise Problem(422, advice, "repository")


def _user_of(value: str) -> str:
    """What stands before the `@`."""
    if url := URL.fullmatch(value):
        return url["user"] or ""
    short = SHORT.match(value)
    return short["user"] if short else ""


def without_user(value: str) -> str:
    """The URL without the user name, which over https may be a token."""
    url = URL.fullmatch(value)
    return f"{url['scheme']}://{url['rest']}" if url and url["scheme"].lower() in ("http", "https") else value


def base(value: str) -> None:
    if len(value) > BASE_LIMIT_CHARS or (value and NO_REF.search(value)):
        raise Problem(422, "This is no branch, tag or commit: leave it out for the default branch.", "base")


def budget(value: Budget) -> None:
    for field in Budget.__struct_fields__:
        limit = getattr(value, field)
        if limit not in (None, UNSET) and not (math.isfinite(limit) and limit >= 0):
            raise Problem(422, "A limit is 0 or more; null means unlimited.", f"budget.{field}")


def queue(value: str) -> None:
    if not is_name(value):
        raise Problem(422, "A queue's name has lower-case letters, digits and `_.-`, at most 40.", "queue")


def labels(values: tuple[str, ...]) -> None:
    if len(values) > LABELS_LIMIT:
        raise Problem(422, f"A task asks for at most {LABELS_LIMIT} labels.", "labels")
    if not all(map(is_name, values)):
        raise Problem(422, "A label has lower-case letters, digits and `_.-`, at most 40: gpu, arm64.", "labels")


def priority(value: int) -> None:
    if abs(value) > PRIORITY_LIMIT:
        raise Problem(422, f"A priority is {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}, the higher the sooner.", "priority")


def settings(value: Settings) -> None:
    if value.model and not MODEL.fullmatch(value.model):
        raise Problem(422, "This is no model's name: leave it out for the default.", "model")
    budget(value.budget)
    daily_usd(value.daily_usd)
    try:
        ZoneInfo(value.time_zone)
    except (KeyError, ValueError, OSError):
        raise Problem(422, "There is no such time zone: it looks like Europe/Berlin.", "time_zone") from None


def daily_usd(value: float | UnsetType | None) -> None:
    if value not in (None, UNSET) and not (math.isfinite(value) and value >= 0):
        raise Problem(422, "A limit is 0 or more; null means unlimited.", "daily_usd")


def rules(value: Sequence[Rule]) -> None:
    if wrong := too_many(value):
        raise Problem(422, wrong, "rules")
    for rule in value:
        if rule.tool not in RULED_TOOLS:
            raise Problem(422, f"There are no rules for {rule.tool!r}: choose of {', '.join(RULED_TOOLS)}.", "rules")
        if not 0 < len(rule.pattern) <= PATTERN_LIMIT_CHARS or CONTROL.search(rule.pattern):
            raise Problem(422, f"A rule's pattern is one line of 1 to {PATTERN_LIMIT_CHARS} characters.", "rules")


def start(value: datetime | None) -> None:
    if value is None:
        return
    if value.tzinfo is None:
        raise Problem(422, "A start date has a time zone: 2026-12-01T09:00:00+01:00.", "start_at")
    if (value - datetime.now(UTC)).total_seconds() > WAIT_LIMIT_SECONDS:
        raise Problem(422, "A start date is at most a year away.", "start_at")


def duration(value: float | None, field: str) -> None:
    if value is not None and not 0 < value <= WAIT_LIMIT_SECONDS:
        raise Problem(422, "This is a number of seconds: more than 0, at most a year.", field)


def name(value: str, field: str) -> None:
    """A user's or a device's name."""
    if not value.strip() or len(value) > NAME_LIMIT_CHARS or CONTROL.search(value):
        raise Problem(422, f"A name has 1 to {NAME_LIMIT_CHARS} characters and no line breaks.", field)


def host(value: str) -> str:
    """The host as it is kept."""
    try:
        return normal_host(value)
    except ValueError as error:
        raise Problem(422, str(error), "host") from None


def secret(value: str) -> None:
    size = len(value.encode())
    if not value.strip() or size > SECRET_LIMIT_BYTES:
        raise Problem(422, f"A secret has 1 to {SECRET_LIMIT_BYTES} bytes, and this one {size}.", "secret")


def secret_name(value: str) -> None:
    """Of a secret for set-ups."""
    if wrong := setup_secret.wrong_name(value):
        raise Problem(422, wrong, "name")


def secret_value(value: str) -> None:
    """Of a secret for set-ups."""
    if wrong := setup_secret.wrong_value(value):
        raise Problem(422, wrong, "value")
