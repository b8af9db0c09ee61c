"""The repository's set-up as the attempt has it: run before the agent's first command, or used as it was kept, and
shown as it goes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

import msgspec

from protocol.journal import SETUP_STEP, HostRefused, Noticed, SetupFinished, SetupStarted
from protocol.repo import LendSecrets, SecretsLent, SetupFound
from protocol.routes import Service
from protocol.secret import bound_to_attempt
from sandbox import contract
from sandbox.contract import ExecResult, Setup
from services import envelope
from services.bus import Bus
from services.runner.log import TaskLog
from services.runner.refusals import tells_of_look_up

OUTPUT_CHARS = 4000
"""Of what a set-up said, its end is kept in the journal."""
LEND_SECONDS = 30.0


def setup_of(found: SetupFound, repository: str, reached: Sequence[str], secrets: contract.LendSecrets) -> Setup:
    """`reached` is what the set-up can see: whose it is, the mirror that the workspace borrows from, the hosts. Who
    reaches something else gets nothing that was made of it, and two users share nothing: one could have left something
    for the other."""
    inputs = hashlib.blake2b(msgspec.json.encode([found.inputs, found.secrets, *reached]), digest_size=16).hexdigest()
    return Setup(
        repository=repository,
        inputs=inputs,
        script=found.script,
        image=found.image,
        dockerfile=found.dockerfile,
        secrets=secrets if found.secrets else contract.no_secrets,
    )


async def borrow_secrets(bus: Bus, task: str, attempt: int) -> Mapping[str, str]:
    """Those that the task's user has for its repository. The key is made for this one question, so that what passes
    NATS can be read by nobody. Refused and Unavailable as the bus."""
    private = envelope.make_key()
    asked = LendSecrets(task=task, attempt=attempt, public_key=envelope.public_key(private))
    lent = await bus.ask(Service.REPOS, asked, SecretsLent, timeout_seconds=LEND_SECONDS)
    return {
        name: envelope.unseal(private, bound_to_attempt(task, attempt, name), sealed)
        for name, sealed in lent.sealed.items()
    }


class ShownSetup:
    """Implements the sandbox's `SetupWatch`: the set-up as the user sees it."""

    def __init__(self, log: TaskLog, no_look_ups: str = "") -> None:
        """`no_look_ups` says why a sandbox looks no names up; empty where it does."""
        self._log = log
        self._no_look_ups = no_look_ups
        self._script = ""
        self._began = 0.0

    async def begins(self, what: str) -> None:
        self._script, self._began = what, time.monotonic()
        await self._log.append(SetupStarted(script=what))

    async def output(self, text: str) -> None:
        if text:
            await self._log.preview(SETUP_STEP, text, "tool")

    async def notice(self, text: str) -> None:
        await self._log.append(Noticed(text=text))

    async def ends(self, result: ExecResult, reason: str) -> None:
        if self._no_look_ups and tells_of_look_up(result.output):
            await self._log.append(HostRefused(host="", port=0, reason=self._no_look_ups))
        finished = SetupFinished(
            script=self._script,
            reason=reason,
            output=result.output[-OUTPUT_CHARS:],
            exit_code=result.exit_code,
            duration_seconds=time.monotonic() - self._began,
        )
        await self._log.append(finished)
