"""What can go wrong between a service and the bus."""

from __future__ import annotations


class Unavailable(Exception):
    """NATS, or who was asked, did not answer in time. Whether a publish was stored is not known."""


class NoAnswer(Unavailable):
    """Somebody serves the query, but did not answer in time."""


class Conflict(Exception):
    """Somebody else wrote to the log: fold what came and decide again."""


class Refused(Exception):
    """A request was answered by a refusal; the reason is for a person."""

    def __init__(self, reason: str, code: str = "refused") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Later(Exception):
    """What a shared message asks for cannot be done now: it comes again, to this process or another."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds
