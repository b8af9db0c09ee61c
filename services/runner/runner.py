"""The shell: asks for work whenever a slot is free, and runs what it gets."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from typing import Annotated, Protocol

import anyio
import anyio.abc
from msgspec import Meta, Struct
from msgspec.structs import replace

from agents.contract import Model
from agents.loop import Settings
from agents.models.prices import offered
from protocol.ids import NAME
from protocol.query import AskHealth, AttemptGranted, ClaimAttempt, Health
from protocol.routes import Service
from protocol.task import DEFAULT_QUEUE
from sandbox.contract import Driver
from sandbox.drivers import Drivers
from services import log
from services.actor import healthy
from services.bus import Bus, Refused, Unavailable
from services.clock import Clock
from services.config import LogLevel, SecondsOrZero
from services.runner.attempt import Attempt, AttemptConfig

VERSION = "0.1.0"
CLAIM_SECONDS = 2.0
"""How long one claim waits. A scheduler that dies under it is noticed so late at most."""
CLAIM_GRACE_SECONDS = 0.5
AGAIN_SECONDS = 0.2

A_NAME = "of at most 40 lower-case letters, digits and `_.-`"
LABELS = rf"^({NAME.pattern}( *, *{NAME.pattern}){{0,15}})?$"
URL = Meta(pattern=r"^https?://\S+$", description="an address that begins with https:// or http://")
ITS_NAME = Meta(pattern=f"^{NAME.pattern}$", description=f"a name {A_NAME}", examples=["gpu"])
THEIR_NAMES = Meta(
    pattern=LABELS, description=f"at most 16 names separated by commas, each {A_NAME}", examples=["gpu,arm64"]
)
SCRIPTED = "The scripted model answers, not Claude: set ANTHROPIC_API_KEY and start again to use Claude."
UNSANDBOXED = "UNSANDBOXED: commands of the agent run on the server itself, with everything it may read and write."


class Config(Struct, frozen=True, kw_only=True):
    """The runner's settings."""

    data: str
    """The installation's data folder."""
    slots: Annotated[int, Meta(ge=1, le=1024)] = 2
    """Attempts that run side by side."""
    queue: Annotated[str, ITS_NAME] = DEFAULT_QUEUE
    """The queue this runner takes work from."""
    labels: Annotated[str, THEIR_NAMES] = ""
    """What this runner has, for tasks that ask for it: lower-case names separated by commas, as `gpu,arm64`."""
    model: str = "claude-sonnet-5-5"
    """For tasks that name none."""
    model_url: Annotated[str, URL] = "https://api.anthropic.com"
    """Where the Messages API is."""
    scripted: bool = False
    """True when the scripted model is behind `model_url`; `errand up` sets it where there is no API key."""
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 32_000
    """The longest reply of the model."""
    hold_question_seconds: SecondsOrZero = 600.0
    """How long a sandbox is kept while the user has not answered; then it is given back, and made again from the
    checkpoint."""
    log_level: LogLevel = "info"

    @property
    def all_labels(self) -> tuple[str, ...]:
        return tuple(sorted({label.strip() for label in self.labels.split(",") if label.strip()}))


class LoadedModel(Model, Protocol):
    """A model that takes a while to load."""

    async def load(self) -> None: ...

    async def close(self) -> None: ...


class Runner:
    """The service."""

    def __init__(
        self, bus: Bus, config: Config, model: LoadedModel, drivers: Drivers, clock: Clock | None = None
    ) -> None:
        self._bus = bus
        self._config = config
        self._model = model
        self._drivers = drivers
        self._clock = clock or Clock()
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._slots = anyio.Semaphore(config.slots)
        self._attempts: set[Attempt] = set()
        self._idle = anyio.Event()
        self._draining = False
        self._claim_over = anyio.Event()
        self._claim_over.set()
        self._log = log.get()

    async def run(self, started: Callable[[], None]) -> None:
        try:
            await self._run_service(started)
        finally:
            await self._drivers.close()

    async def _run_service(self, started: Callable[[], None]) -> None:
        async with anyio.create_task_group() as group:
            service = await self._bus.serve({AskHealth: self._answer_health}, version=VERSION)
            group.start_soon(self._model.load)
            group.start_soon(self._drivers.keep, self._log_sandbox)
            await self._drivers.found.wait()
            started()
            try:
                await self._claim_for_ever(group)
            finally:
                with anyio.CancelScope(shield=True):
                    await service.stop()
                    await self._model.close()

    async def drain(self, *, for_good: bool = False) -> None:
        """Claim nothing more; give back what runs, saved as it is. Its sandboxes are left to the next runner of this
        machine, unless there will be none."""
        self._draining = True
        self._drivers.rest()
        # The answer to a claim that waits may be a grant: it is given back like the others.
        await self._claim_over.wait()
        for attempt in list(self._attempts):
            attempt.stop(leaves_sandbox=not for_good)
        while self._attempts:
            self._idle = anyio.Event()
            await self._idle.wait()

    def health(self) -> Health:
        driver, notice = self._drivers.driver, self._drivers.notice
        notices = [SCRIPTED] if self._model.scripted else []
        if driver is not None and driver.name == "unsandboxed":
            notices.append(UNSANDBOXED)
        if notice:
            notices.append(notice)
        if driver is None and not notice:
            return Health(healthy=False, service=Service.RUNNER, detail=self._drivers.why, notices=tuple(notices))
        sandbox = f"sandbox {driver.name} ({self._drivers.why})" if driver else "no sandbox yet"
        network = ", ".join(self._drivers.egress.words) or "nothing"
        slots = f"{len(self._attempts)} of {self._config.slots} slots in use"
        detail = f"{slots}, {sandbox}, which reaches {network} of the network"
        now = healthy(Service.RUNNER, self._bus, notices=tuple(notices), detail=detail)
        return replace(now, models=offered(self._config.model, scripted=self._model.scripted))

    def _log_sandbox(self, driver: str, why: str) -> None:
        if driver:
            self._log.info("sandbox", driver=driver, why=why)
        else:
            self._log.error("no_sandbox", reason=why)
        for warning in self._drivers.warnings:
            self._log.warning("sandbox_warning", warning=warning)

    async def _answer_health(self, asked: AskHealth) -> Health:
        return self.health()

    async def _claim_for_ever(self, group: anyio.abc.TaskGroup) -> None:
        request = uuid.uuid4().hex
        while not self._draining:
            await self._slots.acquire()
            await self._drivers.found.wait()
            if self._draining:
                break
            # It may be gone by the time of the grant: then the attempt fails at its start, and is tried again.
            driver = self._drivers.driver
            assert driver is not None, "`found` says so"
            self._claim_over = anyio.Event()
            granted = await self._claim(request)
            if granted is None:
                self._slots.release()
            else:
                request = uuid.uuid4().hex
                attempt = self._attempt(granted, driver)
                self._attempts.add(attempt)
                group.start_soon(self._run, attempt, granted.task.id)
            self._claim_over.set()
        await anyio.sleep_forever()

    async def _claim(self, request: str) -> AttemptGranted | None:
        """The answer to one claim; the same request is sent again until it is answered, so that no grant gets lost."""
        asked = ClaimAttempt(
            request=request,
            runner=self._name,
            queue=self._config.queue,
            labels=self._config.all_labels,
            slots=self._config.slots,
            wait_seconds=CLAIM_SECONDS,
        )
        try:
            limit = CLAIM_SECONDS + CLAIM_GRACE_SECONDS
            answer = await self._bus.ask_any(Service.SCHEDULER, asked, timeout_seconds=limit)
        except (Unavailable, Refused):
            await anyio.sleep(AGAIN_SECONDS)
            return None
        return answer if isinstance(answer, AttemptGranted) else None

    def _attempt(self, granted: AttemptGranted, driver: Driver) -> Attempt:
        config = AttemptConfig(
            runner=self._name,
            default_model=self._config.model,
            hold_question_seconds=self._config.hold_question_seconds,
            settings=Settings(max_tokens=self._config.max_tokens),
            egress=self._drivers.egress,
            ignored_bytes=self._drivers.ignored_bytes,
        )
        return Attempt(self._bus, self._model, driver, config, granted, self._clock)

    async def _run(self, attempt: Attempt, task: str) -> None:
        try:
            await attempt.run()
        except Exception:
            self._log.exception("attempt_broke", task=task)
        finally:
            self._attempts.discard(attempt)
            self._slots.release()
            if not self._attempts:
                self._idle.set()
