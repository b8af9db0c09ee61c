"""The repository's set-up as the attempt has it: run before the agent's first command, or used as it was kept, and
shown as it goes."""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from protocol.journal import Noticed, SetupFinished, SetupStarted
from protocol.repo import SetupFound
from sandbox.contract import ExecResult, SandboxError, Setup
from sandbox.secret_values import check_secrets
from services.runner.log import TaskLog

OUTPUT_CHARS = 4000
"""Of what a set-up said, its end is kept in the journal."""
STEP = 0
"""Stands for the set-up where its output is shown."""
OTHERS = 0o077


def setup_of(found: SetupFound, repository: str, reached: Sequence[str], secrets: Mapping[str, str]) -> Setup:
    """`reached` is what the set-up can see: whose it is, the mirror that the workspace borrows from, the hosts. Who
    reaches something else gets nothing that was made of it, and two users share nothing: one could have left something
    for the other."""
    inputs = hashlib.blake2b(msgspec.json.encode([found.inputs, *reached]), digest_size=16).hexdigest()
    return Setup(
        repository=repository,
        inputs=inputs,
        script=found.script,
        image=found.image,
        dockerfile=found.dockerfile,
        secrets=secrets,
    )


def read_secrets(file: str, repository: str) -> dict[str, str]:
    """Those that the operator's file has for this repository; read each time, so that a change needs no restart.
    SandboxError with what to mend, and without any value.

    ```toml
    ["https://github.com/me/app"]
    NPM_TOKEN = "…"
    ```
    """
    if not file:
        return {}
    path = Path(file)
    try:
        if path.stat().st_mode & OTHERS:
            raise SandboxError(f"{file} can be read by others: `chmod 600 {file}` (ERRAND_SETUP_SECRETS).")
        found = msgspec.convert(tomllib.loads(path.read_text()), dict[str, dict[str, str]]).get(repository, {})
        check_secrets(found)
    except OSError as error:
        raise SandboxError(f"{file} cannot be read: {error.strerror} (ERRAND_SETUP_SECRETS).") from error
    except (ValueError, msgspec.ValidationError):
        raise SandboxError(
            f"{file} is not understood (ERRAND_SETUP_SECRETS): it needs a table a repository, named by its URL in "
            'quotes, with lines such as NPM_TOKEN = "…", each value of at least 8 characters.'
        ) from None
    return found


class ShownSetup:
    """Implements the sandbox's `SetupWatch`: the set-up as the user sees it."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._script = ""
        self._began = 0.0

    async def begins(self, what: str) -> None:
        self._script, self._began = what, time.monotonic()
        await self._log.append(SetupStarted(script=what))

    async def output(self, text: str) -> None:
        if text:
            await self._log.preview(STEP, text, "tool")

    async def notice(self, text: str) -> None:
        await self._log.append(Noticed(text=text))

    async def ends(self, result: ExecResult, reason: str) -> None:
        finished = SetupFinished(
            script=self._script,
            reason=reason,
            output=result.output[-OUTPUT_CHARS:],
            exit_code=result.exit_code,
            duration_seconds=time.monotonic() - self._began,
        )
        await self._log.append(finished)
