"""What is refused, with a sentence that says what to do."""

from __future__ import annotations

from typing import Any

from services.bus import Refused


class Problem(Exception):
    """A request that is not done. `field` is the part of it that is wrong, where it is one."""

    def __init__(self, status: int, error: str, field: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.field = field

    def body(self) -> dict[str, Any]:
        return {"error": self.error, "field": self.field} if self.field else {"error": self.error}


NO_TASK = "There is no such task."
"""Also said of another user's task: whether it exists is nobody's business."""


def no_task() -> Problem:
    return Problem(404, NO_TASK)


def of_refusal(refused: Refused, field: str = "") -> Problem:
    """A service's refusal as ours."""
    statuses = {"not_found": 404, "unavailable": 503, "internal": 502}
    return Problem(statuses.get(refused.code, 422), refused.reason, field)
