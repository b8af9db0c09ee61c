"""Whole installations side by side on one nats-server: each is a cell, with a name before all of its own names.

`evt.owner.t1.task.queued` of the cell `b` is `b.evt.owner.t1.task.queued`, its stream `b_TASKS`, its lease bucket
`b_lease`, its user `b_gateway`. Nothing but the edge (`services.bus`) and the permissions knows of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

ROOTS = frozenset({"cmd", "evt", "timer", "out", "dead", "live", "look", "printed", "qry"})
"""The first tokens of our subjects."""
BUCKETS = frozenset({"lease", "blobs", "snapshots", "archive"})
STREAMS = frozenset({"TASKS", "OUTPUT", "DEAD", "KV_lease", *(f"OBJ_{b}" for b in BUCKETS - {"lease"})})
NAME = rf"(?!({'|'.join(sorted(ROOTS))})$)[a-z0-9]{{1,16}}"
"""What a cell may be called: its name is the first token of its subjects."""
CellName = Annotated[
    str,
    Meta(
        pattern=f"^({NAME})?$",
        description=f"1 to 16 characters of a-z and 0-9, and none of {', '.join(sorted(ROOTS))}",
        examples=["b"],
    ),
]

_STREAM_KEYS = frozenset({"name", "stream_name"})
_SUBJECT_KEYS = frozenset(
    {"filter", "filter_subjects", "last_by_subj", "next_by_subj", "subjects", "subjects_filter", "src", "dest"}
)


class Cell(Struct, frozen=True):
    """What is what in one cell; without a name each thing is called as it is."""

    name: str = ""

    def user(self, service: str) -> str:
        """Under which a service signs in; what it is answered comes to `_INBOX_<user>.`."""
        return f"{self.name}_{service}" if self.name else service

    def subject(self, subject: str) -> str:
        """Any subject of ours, of JetStream's API too, as the server has it. Said twice, it changes nothing more."""
        if not self.name:
            return subject
        root, _, rest = subject.partition(".")
        if root in ROOTS:
            return f"{self.name}.{subject}"
        if root == "_INBOX":
            return subject
        if root in ("$KV", "$O"):
            bucket, _, key = rest.partition(".")
            return f"{root}.{self.bucket(bucket)}.{key}"
        return self._api(subject) if root == "$JS" else subject

    def wildcard(self, subject: str) -> str:
        """As `subject`; `>` is everything of the cell."""
        return f"{self.name}.>" if self.name and subject == ">" else self.subject(subject)

    def _api(self, subject: str) -> str:
        """A stream may be any token, and what follows the stream of a read may be a subject."""
        tokens = subject.split(".")
        for place, token in enumerate(tokens):
            if token in STREAMS:
                key = ".".join(tokens[place + 1 :])
                after = [self.subject(key)] if key else []
                return ".".join([*tokens[:place], self.stream(token), *after])
        return subject

    def stream(self, name: str) -> str:
        if not self.name or name not in STREAMS:
            return name
        kind, bar, bucket = name.partition("_")
        return f"{kind}_{self.bucket(bucket)}" if bar else f"{self.name}_{name}"

    def bucket(self, name: str) -> str:
        return f"{self.name}_{name}" if self.name and name in BUCKETS else name

    def back(self, subject: str) -> str:
        """What the server calls so is called here."""
        if not self.name:
            return subject
        for root in ("$KV", "$O"):
            if subject.startswith(f"{root}.{self.name}_"):
                return subject.replace(f"{self.name}_", "", 1)
        return subject.removeprefix(f"{self.name}.")

    def request(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What JetStream is asked, with the cell's names in it."""
        return {key: self._value(key, value) for key, value in asked.items()} if self.name else asked

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return self.request(value)
        if key in _STREAM_KEYS:
            return self.stream(value)
        if key in _SUBJECT_KEYS:
            return [self.wildcard(each) for each in value] if isinstance(value, list) else self.wildcard(value)
        return value


NO_CELL = Cell()
"""An installation that has its nats-server to itself."""
