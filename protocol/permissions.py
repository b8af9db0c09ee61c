"""What each service may send and hear, as NATS allow-lists made from ROUTES. Deny rules have been bypassed before, so
nothing rests on one but what the reader is not shown: docs/decisions/0016."""

from __future__ import annotations

from msgspec import Struct

from protocol.cells import NO_CELL, Cell
from protocol.routes import ROUTES, Service, Stream

S = Service

# Of JetStream's API, what each kind of use needs. `$JS.API.>` is granted to nobody.
_READ_STREAM = ("$JS.API.STREAM.INFO.{0}", "$JS.API.DIRECT.GET.{0}", "$JS.API.DIRECT.GET.{0}.>")
_FOLLOW_STREAM = (*_READ_STREAM, "$JS.API.CONSUMER.CREATE.{0}.>", "$JS.API.CONSUMER.DELETE.{0}.>", "$JS.FC.{0}.>")
_MAKE_STREAM = ("$JS.API.STREAM.CREATE.{0}", "$JS.API.STREAM.UPDATE.{0}", "$JS.API.STREAM.INFO.{0}")


def _bucket(name: str) -> tuple[str, ...]:
    """To read and write one bucket of the object store."""
    return (f"$O.{name}.>", f"$JS.API.STREAM.PURGE.OBJ_{name}", *_read_bucket(name))


def _read_bucket(name: str) -> tuple[str, ...]:
    """To read one bucket of the object store."""
    stream = f"OBJ_{name}"
    return (
        *(subject.format(stream) for subject in _FOLLOW_STREAM),
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}",  # nats-py names no consumer when it reads a blob
        "$JS.API.STREAM.NAMES",
    )


_BLOBS = _bucket("blobs")
_ARCHIVE = _read_bucket("archive")
_STREAMS = (*Stream, "KV_lease", "OBJ_blobs", "OBJ_snapshots", "OBJ_archive")
_OF_TASKS = tuple(r.wildcard for r in ROUTES if r.subject.startswith(("cmd.<user>.<task>", "evt.<user>.<task>")))
"""What is said of tasks, without the users' logs."""

_EXTRA_PUBLISH: dict[Service, tuple[str, ...]] = {
    S.SCHEDULER: (
        "$KV.lease.scheduler",
        "$JS.API.DIRECT.GET.KV_lease",
        "$JS.API.STREAM.PURGE.KV_lease",
        "$JS.API.STREAM.PURGE.TASKS",
        *(subject.format(stream) for stream in _STREAMS for subject in _MAKE_STREAM),
        *(subject.format("TASKS") for subject in _FOLLOW_STREAM),
        *_BLOBS,
        # Its own: whoever could write here could make users and tasks.
        *_bucket("snapshots"),
        *_bucket("archive"),
    ),
    S.GATEWAY: (
        *(subject.format("TASKS") for subject in _FOLLOW_STREAM),
        "$JS.API.CONSUMER.MSG.NEXT.TASKS.push",
        "$JS.ACK.TASKS.push.>",
        *_ARCHIVE,
        "$JS.API.DIRECT.GET.DEAD",
        "$JS.API.DIRECT.GET.DEAD.>",
        "$JS.API.STREAM.MSG.DELETE.DEAD",
    ),
    S.RUNNER: ("$KV.lease.attempt.>", *(subject.format("TASKS") for subject in _FOLLOW_STREAM), *_BLOBS, *_ARCHIVE),
    S.REPOS: (*(subject.format("TASKS") for subject in _READ_STREAM), *_BLOBS),
    S.HISTORY: (*(subject.format("TASKS") for subject in _FOLLOW_STREAM), *_ARCHIVE),
    S.OPERATOR: (
        "$SRV.>",
        *(subject.format(stream) for stream in _STREAMS for subject in _MAKE_STREAM),
        *(subject.format(stream) for stream in Stream for subject in _READ_STREAM),
    ),
    S.READER: (
        *(f"$SRV.{verb}{which}" for verb in ("PING", "INFO", "STATS") for which in ("", ".>")),
        "$SYS.REQ.USER.INFO",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in _STREAMS),
        *(f"$JS.API.CONSUMER.{verb}.{stream}" for verb in ("NAMES", "LIST") for stream in Stream),
        *(f"$JS.API.CONSUMER.INFO.{stream}.>" for stream in Stream),
        # The last message of a subject, and of the streams without a user's log any. No consumer: the server would
        # deliver its messages to whatever subject it names, other services' queries and inboxes too.
        *(f"$JS.API.DIRECT.GET.TASKS.{subject}" for subject in _OF_TASKS),
        *(f"$JS.API.{get}.{stream}" for get in ("DIRECT.GET", "STREAM.MSG.GET") for stream in ("OUTPUT", "DEAD")),
    ),
}

_EXTRA_SUBSCRIBE: dict[Service, tuple[str, ...]] = {
    S.SCHEDULER: ("$KV.lease.attempt.>",),
    S.GATEWAY: ("live.>",),
    S.RUNNER: ("live.*.*.task.*",),
    # The very subject that a person writes: a wildcard that is wider than what is allowed is refused as a whole.
    S.READER: ("cmd.>", "evt.>", "out.>", "dead.>", "live.>"),
}

_HIDDEN: dict[Service, tuple[str, ...]] = {
    S.READER: ("cmd.*.user.>", "evt.*.user.>", "live.*.user.>"),
}
"""Left out of a wildcard that is allowed as a whole."""


class Permissions(Struct, frozen=True):
    """Subjects one service may publish on and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    """Subjects that are left out of what is subscribed to."""
    answers: bool = False
    """Whether it may answer who asks it. Whoever hears a publish could otherwise answer it in the server's name."""


def permissions(service: Service, cell: Cell = NO_CELL) -> Permissions:
    """The allow-lists of one service of a cell."""
    sends = {route.wildcard for route in ROUTES if service in route.senders}
    serves = {r.wildcard for r in ROUTES if service in r.receivers and r.subject.startswith("qry.")}
    hears = {
        r.wildcard for r in ROUTES if service in r.receivers and not r.subject.startswith(("qry.", "cmd.", "timer."))
    }
    inbox = f"_INBOX_{cell.user(service)}.>"
    subscribe = serves | set(_EXTRA_SUBSCRIBE.get(service, ())) | {inbox}
    if serves:
        subscribe.add("$SRV.>")
    # Events come over `live.` or by a read of the stream; only previews, who is present and the reader's trace need the
    # plain subject.
    subscribe |= {
        subject for subject in hears if subject.startswith(("out.", "look.", "printed.")) or service is S.READER
    }
    publish = sends | set(_EXTRA_PUBLISH.get(service, ()))
    return Permissions(
        publish=tuple(sorted(map(cell.subject, publish))),
        subscribe=tuple(sorted(map(cell.subject, subscribe))),
        hidden=tuple(map(cell.subject, _HIDDEN.get(service, ()))),
        answers=bool(serves),
    )
