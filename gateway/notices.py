"""What every screen has to say: that the model is scripted, that commands run unsandboxed; and which models can be
chosen. The runner knows."""

from __future__ import annotations

import time

from protocol.query import AskHealth, Health
from protocol.routes import Service
from services.bus import Bus, Refused, Unavailable

FRESH_SECONDS = 30.0
AGAIN_SECONDS = 2.0
"""After a runner that did not answer."""
ANSWER_SECONDS = 0.5
"""Signing in waits for it."""


class Notices:
    """The runner's notices, as it said them last."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.models: tuple[str, ...] = ()
        """Names to offer for a task, the default first; as they were when `current` was called last."""
        self._notices: tuple[str, ...] = ()
        self._until = 0.0

    async def current(self) -> tuple[str, ...]:
        if time.monotonic() >= self._until:
            # Set first, so that of many who sign in at once, one asks.
            self._until = time.monotonic() + AGAIN_SECONDS
            try:
                health = await self._bus.ask(Service.RUNNER, AskHealth(), Health, timeout_seconds=ANSWER_SECONDS)
            except (Unavailable, Refused):
                return self._notices
            self._notices, self.models = health.notices, health.models
            self._until = time.monotonic() + FRESH_SECONDS
        return self._notices
