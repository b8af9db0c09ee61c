"""What a user is told of refusals: each host and port once a sandbox, and of very many not all."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.egress.policy import Refusal

TOLD_LIMIT = 32
MORE = Refusal(
    host="", port=0, reason=f"{TOLD_LIMIT} hosts were refused to this sandbox: of further ones nothing is told"
)


class Refusals:
    """Of one sandbox."""

    def __init__(self, tell: Callable[[Refusal], None] | None) -> None:
        self._tell = tell
        self._told: set[tuple[str, int]] = set()

    def add(self, refusal: Refusal) -> None:
        place = (refusal.host, refusal.port)
        if self._tell is None or place in self._told or len(self._told) > TOLD_LIMIT:
            return
        self._told.add(place)
        self._tell(refusal if len(self._told) <= TOLD_LIMIT else MORE)
