"""The one place that starts git: its surroundings, its limits, and its end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
from msgspec import Struct

from services.bus import Refused
from services.repos.complaints import explain

LOCAL_SECONDS = 120.0
"""How long git may take for what needs no network."""
ENDING_SECONDS = 2.0
"""Between the polite and the final end: git removes its lock and temporary files when it is asked to end."""
OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024
ERRORS_LIMIT_BYTES = 64 * 1024
PROCESSES_LIMIT = 32
"""Git processes at one time."""
OLDEST = (2, 31)
"""The first git that takes settings from GIT_CONFIG_COUNT."""
OLDEST_THAT_PINS = (2, 37)
"""The first git that knows `http.curloptResolve`; an older one would not heed it."""

# What git may see of our own environment: how to find programs, proxies and certificates.
INHERITED = re.compile(r"PATH|TMPDIR|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|GIT_SSL_CAINFO")

SETTINGS = {
    # No program runs because a repository or a machine says so.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "",
    "credential.helper": "",
    "protocol.ext.allow": "never",
    # Nothing is ever collected: workspaces borrow the objects.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A connection that is dead ends.
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "transfer.credentialsInUrl": "die",
    "submodule.recurse": "false",
    "push.followTags": "false",
    "advice.detachedHead": "false",
    "core.packedGitWindowSize": "32m",
    "core.packedGitLimit": "256m",
}


class Remote(Struct, frozen=True, kw_only=True):
    """A repository elsewhere, and what opens it for one git process."""

    url: str
    protocols: str
    """What git may speak, separated by colons."""
    place: str
    """The host, or the path, as a sentence names it."""
    environment: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}
    secrets: tuple[str, ...] = ()
    """Never to be seen in what git says."""
    has_credential: bool = False
    is_own_account: bool = False
    """The credential is the user's own at this host."""

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"


class GitFailed(Refused):
    """git ended with an error. `reason` is a sentence for a person, without credentials; `exit_code` is None at a
    time limit; `output` and `said` are its stdout and stderr."""

    def __init__(
        self, reason: str, code: str, *, exit_code: int | None = None, output: str = "", said: str = ""
    ) -> None:
        super().__init__(reason, code)
        self.exit_code = exit_code
        self.output = output
        self.said = said


class Output(Struct, frozen=True):
    """What git wrote to stdout. `cut`: it was ended at the limit."""

    data: bytes
    cut: bool = False

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


class Git:
    """Starts git with an empty home and no configuration but ours."""

    def __init__(self, home: Path, inherited: Mapping[str, str]) -> None:
        """`home` is an empty folder; of `inherited`, what INHERITED names is passed on."""
        self._home = home
        self._version: tuple[int, int] = (0, 0)
        self._limit = anyio.CapacityLimiter(PROCESSES_LIMIT)
        self._environment = {name: value for name, value in inherited.items() if INHERITED.fullmatch(name)} | {
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            # No repository is found by looking upwards: the data folder may lie in somebody's checkout.
            "GIT_CEILING_DIRECTORIES": str(home.parent),
            "GIT_ALLOW_PROTOCOL": "none",
        }

    async def check(self) -> str:
        """git's version; Refused with what to do when there is none, or one that is too old."""
        try:
            found = re.search(r"(\d+)\.(\d+)\S*", (await self.run("version")).text)
        except FileNotFoundError:
            raise Refused("There is no git on this machine: install it, such as by `apt install git`.") from None
        if found is not None:
            self._version = int(found[1]), int(found[2])
        if found is None or self._version < OLDEST:
            raise Refused(f"git {'.'.join(map(str, OLDEST))} or newer is needed.")
        return found[0]

    async def run(
        self,
        *arguments: str,
        repository: Path | None = None,
        worktree: Path | None = None,
        remote: Remote | None = None,
        settings: Mapping[str, str] | None = None,
        data: bytes = b"",
        timeout_seconds: float = LOCAL_SECONDS,
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
        inherit: Sequence[int] = (),
    ) -> Output:
        """Run git and return its output; GitFailed when it fails or takes too long.

        A `repository` is used as it is named, none is searched for. Without a `remote` no protocol is allowed. `data`
        goes to stdin. `inherit` are descriptors that git and all it starts keep open.
        """
        if remote is not None and "http.curloptResolve" in remote.settings and self._version < OLDEST_THAT_PINS:
            raise Refused(
                "The server's git is too old for the tasks of others than the owner: 2.37 or newer is needed."
            )
        chosen = SETTINGS | dict(settings or {}) | dict(remote.settings if remote else {})
        environment = self._environment | _as_environment(chosen)
        if repository is not None:
            environment["GIT_DIR"] = str(repository)
        if worktree is not None:
            environment["GIT_WORK_TREE"] = str(worktree)
        if remote is not None:
            environment |= {"GIT_ALLOW_PROTOCOL": remote.protocols, **remote.environment}
        async with self._limit:
            process = await anyio.open_process(
                ["git", *arguments],
                cwd=worktree or repository or self._home,
                env=environment,
                start_new_session=True,
                pass_fds=inherit,
            )
            try:
                with anyio.fail_after(timeout_seconds):
                    output, errors = await _converse(process, data, limit_bytes)
                    if not output.cut:
                        await process.wait()
            except TimeoutError:
                raise GitFailed(*_late(arguments[0], timeout_seconds, remote)) from None
            finally:
                await _end(process)
        if process.returncode != 0 and not output.cut:
            said = _without_secrets(errors.decode(errors="replace"), remote)
            reason, code = explain(arguments[0], said, remote)
            shown = _without_secrets(output.text, remote)
            raise GitFailed(reason, code, exit_code=process.returncode, output=shown, said=said)
        return output


def _as_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings as git reads them from its environment, which no repository can override."""
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


async def _converse(process: anyio.abc.Process, data: bytes, limit_bytes: int) -> tuple[Output, bytes]:
    """Feed stdin and read stdout and stderr, all at once; stop at the limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    errors = bytearray()
    chunks: list[bytes] = []

    async def feed() -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            if data:
                await stdin.send(data)
        await stdin.aclose()

    async def read_errors() -> None:
        async for chunk in stderr:
            errors.extend(chunk)
            del errors[:-ERRORS_LIMIT_BYTES]

    size = 0
    async with anyio.create_task_group() as group:
        group.start_soon(feed)
        group.start_soon(read_errors)
        async for chunk in stdout:
            chunks.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                group.cancel_scope.cancel()
                break
    return Output(b"".join(chunks)[:limit_bytes], cut=size > limit_bytes), bytes(errors)


async def _end(process: anyio.abc.Process) -> None:
    """Leave nothing of git running, whatever happened."""
    with anyio.CancelScope(shield=True):
        for way in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is not None:
                break
            with suppress(ProcessLookupError):
                os.killpg(process.pid, way)
            with anyio.move_on_after(ENDING_SECONDS):
                await process.wait()
        await process.aclose()


def _without_secrets(text: str, remote: Remote | None) -> str:
    for secret in remote.secrets if remote else ():
        text = text.replace(secret, "***")
    return re.sub(r"://[^/@\s]+@", "://", text)


def _late(command: str, seconds: float, remote: Remote | None) -> tuple[str, str]:
    if remote is None:
        return f"git {command} took longer than {seconds:g} s on the server.", "unavailable"
    return f"{remote.place} did not finish within {seconds:g} s.", "unavailable"
