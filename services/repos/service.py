"""The repos service: its settings, its life, and the answers to each query of `protocol/repo.py`."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from protocol import repo
from protocol.base import Message
from protocol.evolve import Task, evolve
from protocol.ids import OWNER, is_token
from protocol.query import AskHealth, Health
from protocol.repo import BRANCH
from protocol.routes import Service
from protocol.task import decode_decision
from services import log
from services.actor import healthy
from services.bus import Bus, Handler, Refused, Unavailable
from services.config import Bytes, Count, LogLevel, Seconds, SecondsOrZero
from services.github import GithubConfig
from services.listening import PublicUrl
from services.repos.accounts import Accounts
from services.repos.address import Address, on_disk, parse
from services.repos.cache import COMMIT_ID, Cache, Mirror, empty, list_remote
from services.repos.credentials import Credentials
from services.repos.git import Git
from services.repos.hosts import Branch, Host, Offered
from services.repos.hosts.github import Github
from services.repos.publish import Limits, Publisher
from services.repos.reach import Reach
from services.repos.user_logs import UserLogs
from services.repos.user_secrets import UserSecrets
from services.repos.vault import Vault
from services.repos.workspaces import Workspaces, is_wanted

TAKES_LONG = (repo.ResolveBase, repo.PrepareWorkspace, repo.Publish)
"""Who waits for one of these asks again, should we have died."""
VERSION = "0.1.0"
CHECK_REMOTE_SECONDS = 8.0
SWEEP_SECONDS = 300.0
TASKS_LIMIT = 10_000
"""Tasks of which it is remembered whose they are."""
REQUESTS_LIMIT = 512
"""Queries answered side by side; most wait for a fetch that another one started."""
OPEN_FOLDER = "repositories"
"""In the data folder, the bare repositories that people may use: branches stay here when nothing is pushed, and the
demo puts its clone here."""


class Config(Struct, frozen=True, kw_only=True):
    """The settings of repos."""

    data: str
    """The installation's data folder."""
    freshness_seconds: SecondsOrZero = 15.0
    """How long a mirror counts as up to date after it was fetched."""
    fetch_seconds: Seconds = 3600.0
    """The longest a fetch may take; a first copy goes on while those who wait are told to come back."""
    push: bool = True
    """`0`: branches go to a bare clone in `<data>/repositories` instead of the remote."""
    publish_limit_bytes: Bytes = 256 * 1024 * 1024
    """The largest bundle that is pushed."""
    publish_limit_files: Count = 10_000
    """The most files one task may change."""
    free_bytes: Annotated[int, Meta(ge=0, le=1024**5)] = 512 * 1024 * 1024
    """With less than this free on the data folder's disk, no new work is taken."""
    internal_hosts: str = ""
    """Git hosts, separated by commas, that every user's tasks may use though their addresses are not public:
    `git.lan,10.0.0.7:8443`. A host without a port means the default ones. They are also reached through the proxy of
    the environment, which others than the owner do not get for other hosts."""
    public_url: PublicUrl = ""
    """Where people reach this server: pull requests link to the task there. Empty: they link nowhere."""
    log_level: LogLevel = "info"


class Repos:
    """The service."""

    def __init__(self, bus: Bus, config: Config, github: GithubConfig, inherited: Mapping[str, str]) -> None:
        """`inherited` is the environment, of which git gets proxies and certificates."""
        self._bus = bus
        self._config = config
        self._data = Path(config.data).expanduser().absolute()
        self._unfinished = self._data / "unfinished"
        home = self._data / "home" / "empty"
        home.mkdir(parents=True, exist_ok=True)
        self._git = Git(home, inherited)
        logs, self._vault = UserLogs(bus), Vault(self._data / "secrets")
        accounts = Accounts(bus, logs, self._vault, github)
        self._secrets = UserSecrets(logs, self._vault)
        # Who signs in with an Enterprise server may use it, wherever it is.
        reach = Reach(f"{config.internal_hosts},{github.host}" if github.is_enterprise else config.internal_hosts)
        self._credentials = Credentials(logs, self._vault, accounts, self._data, reach, github.host)
        self._hosts: tuple[Host, ...] = (Github(github, config.public_url),)
        self._users: OrderedDict[str, str] = OrderedDict()
        self._workspaces = Workspaces(self._data / "workspaces", self._unfinished, self._data / "trash", self._git)
        self._publisher = Publisher(
            self._data / "published",
            self._unfinished,
            self._git,
            self._credentials.lend,
            bus.get_blob,
            limits=Limits(bundle_bytes=config.publish_limit_bytes, files=config.publish_limit_files),
            push=config.push,
            local_folder=self._data / OPEN_FOLDER,
        )
        self._tasks = anyio.create_task_group()
        self._cache = Cache(
            self._data / "mirrors",
            self._git,
            self._credentials.lend,
            self._tasks,
            freshness_seconds=config.freshness_seconds,
            fetch_seconds=config.fetch_seconds,
        )
        self._stop_serving: Callable[[], Awaitable[None]] | None = None
        self._in_hand = 0
        self._idle = anyio.Event()
        self._log = log.get()

    # Its life

    async def run(self, started: Callable[[], None]) -> None:
        """See `Actor.run`. Refused with what to install when there is no git."""
        version = await self._git.check()
        self._vault.prepare()
        self._credentials.prepare()
        self._workspaces.discard_unfinished()
        await self._sweep()
        async with self._tasks:
            self._tasks.start_soon(self._workspaces.keep_clean)
            self._tasks.start_soon(self._keep_swept)
            handlers = {question: self._in_hand_while(handler) for question, handler in self._handlers().items()}
            served = await self._bus.serve(handlers, version=VERSION, at_once=REQUESTS_LIMIT, joined=TAKES_LONG)
            self._stop_serving = served.stop
            self._log.info("serving", git=version, push=self._config.push)
            started()

    async def drain(self, *, for_good: bool = False) -> None:
        """Publishes and workspaces in hand are finished; fetches end, and who waits for one is told to come back."""
        if self._stop_serving is not None:
            await self._stop_serving()
        self._cache.stop()
        while self._in_hand:
            self._idle = anyio.Event()
            await self._idle.wait()

    def health(self) -> Health:
        free = shutil.disk_usage(self._data).free
        detail = f"only {free // 2**20} MiB are free on the disk" if free < self._config.free_bytes else ""
        return healthy(Service.REPOS, self._bus, detail=detail)

    def _in_hand_while(self, handler: Handler) -> Handler:
        async def answer(asked: Any) -> Message:
            self._in_hand += 1
            try:
                with log.bound(task=getattr(asked, "task", "")):
                    return await handler(asked)
            finally:
                self._in_hand -= 1
                if not self._in_hand:
                    self._idle.set()

        return answer

    async def _keep_swept(self) -> None:
        while True:
            await anyio.sleep(SWEEP_SECONDS)
            await self._sweep()
            await self._tidy()

    async def _sweep(self) -> None:
        try:
            await self._workspaces.sweep(self._is_wanted)
        except (Unavailable, msgspec.MsgspecError) as error:
            self._log.warning("not_swept", error=str(error))

    async def _tidy(self) -> None:
        try:
            await self._publisher.tidy()
        except (Refused, OSError) as error:
            self._log.warning("not_tidied", error=str(error))

    async def _is_wanted(self, task: str, attempt: int) -> bool:
        return is_wanted(await self._as_decided(task), attempt, datetime.now(UTC))

    async def _as_decided(self, task: str) -> Task:
        """The task as of now; without a user where there is none of this id."""
        state = Task(id=task, user="")
        for stored in await self._bus.replay(f"evt.*.{task}.task.*") if is_token(task) else ():
            state = evolve(replace(state, user=stored.subject.split(".")[1]), decode_decision(stored.data))
        return state

    # Its answers

    def _handlers(self) -> dict[type, Handler]:
        return {
            repo.CheckRepository: self._check,
            repo.ResolveBase: self._resolve,
            repo.PrepareWorkspace: self._prepare,
            repo.ReleaseWorkspace: self._release,
            repo.Publish: self._publish,
            repo.ShowDiff: self._show_diff,
            repo.AskSealingKey: self._sealing_key,
            repo.LendSecrets: self._lend_secrets,
            AskHealth: self._ask_health,
        }

    async def _check(self, asked: repo.CheckRepository) -> repo.RepositoryKnown:
        address = await self._address(asked.repository, OWNER if asked.is_owner else asked.user)
        mirror = self._cache.mirror(address)
        if mirror.exists:
            # Whoever checks will soon want to start from it.
            self._cache.warm(address)
            return repo.RepositoryKnown(repository=address.url, default_branch=mirror.default_branch())
        async with self._credentials.lend(address) as remote:
            listing = await list_remote(self._git, remote, timeout_seconds=CHECK_REMOTE_SECONDS)
        if not listing.refs:
            raise empty(address)
        return repo.RepositoryKnown(repository=address.url, default_branch=listing.head.removeprefix("refs/heads/"))

    async def _resolve(self, asked: repo.ResolveBase) -> repo.BaseResolved:
        user = OWNER if asked.is_owner else asked.user
        address = await self._address(asked.repository, user)
        self._remember(asked.task, user)
        self._check_room()
        base = await self._cache.resolve(address, asked.base)
        return repo.BaseResolved(commit=base.commit, instructions=base.instructions)

    async def _prepare(self, asked: repo.PrepareWorkspace) -> repo.WorkspacePrepared:
        address = await self._address(asked.repository, await self._user_of(asked.task))
        if not BRANCH.fullmatch(asked.branch) or not COMMIT_ID.fullmatch(asked.commit):
            raise Refused("A workspace needs a branch named errand/<task>-<slug> and a full commit id.")
        mirror = self._cache.mirror(address)
        if asked.keep:
            kept = self._workspaces.keep(asked.task, asked.attempt, asked.keep)
            return repo.WorkspacePrepared(path=str(kept or ""))
        self._check_room()
        if not await mirror.has(asked.commit):
            await self._cache.resolve(address, asked.commit)
        path = await self._workspaces.prepare(
            mirror,
            asked.task,
            asked.attempt,
            asked.commit,
            asked.branch,
            checkout=asked.checkout,
            for_setup=asked.for_setup,
        )
        setup = await mirror.setup(asked.commit)
        if setup is not None and setup.script and not asked.for_setup:
            user = await self._user_of(asked.task)
            setup = replace(setup, secrets=await self._secrets.digest(user, address.url))
        return repo.WorkspacePrepared(path=str(path), readonly_paths=(str(mirror.objects),), setup=setup)

    async def _lend_secrets(self, asked: repo.LendSecrets) -> repo.SecretsLent:
        """To the runner that holds the attempt, for what the task works on as the stream has it."""
        task = await self._as_decided(asked.task)
        if task.holder is None or task.holder.attempt != asked.attempt:
            raise Refused("Secrets are lent to an attempt that runs, and this one is over.", "not_found")
        return repo.SecretsLent(sealed=await self._secrets.lend(task.user, task.repository, asked))

    async def _release(self, asked: repo.ReleaseWorkspace) -> repo.WorkspaceReleased:
        self._workspaces.release(asked.task, asked.attempt, for_setup=asked.for_setup)
        return repo.WorkspaceReleased()

    async def _publish(self, asked: repo.Publish) -> repo.PublishDone:
        user = OWNER if asked.is_owner else asked.user
        address = await self._address(asked.repository, user)
        mirror = self._cache.mirror(address)
        if not await mirror.has(asked.base_commit):
            await self._cache.resolve(address, asked.base_commit)
        done = await self._publisher.publish(asked, mirror)
        offered = await self._offer(asked, mirror, user)
        return repo.PublishDone(
            published=replace(done.published, pull_request=offered.pull_request),
            notices=(*done.notices, *offered.notices),
        )

    async def _offer(self, asked: repo.Publish, mirror: Mirror, user: str) -> Offered:
        """Let the host have a pull request for what was pushed, where it has such things and the task wants one."""
        host = next((host for host in self._hosts if host.has(mirror.address)), None)
        if host is None or asked.pull_request is None or not self._config.push:
            return Offered()
        base = mirror.branch(asked.pull_request.base)
        branch = Branch(address=mirror.address, name=asked.branch, base=base, task=asked.task)
        async with self._credentials.lend_token(mirror.address, user) as token:
            return await host.offer(branch, asked.pull_request, token)

    async def _show_diff(self, asked: repo.ShowDiff) -> repo.Diff:
        address = await self._address(asked.repository, OWNER if asked.is_owner else asked.user)
        try:
            return await self._publisher.diff(address, asked.base_commit, asked.commit)
        except Refused as refused:
            if refused.code != "not_found" or not address.private_to:
                raise
        # It was published before the user signed in with an own account.
        return await self._publisher.diff(replace(address, private_to=""), asked.base_commit, asked.commit)

    async def _sealing_key(self, _: repo.AskSealingKey) -> repo.SealingKey:
        return repo.SealingKey(public_key=self._vault.public_key())

    async def _ask_health(self, _: AskHealth) -> Health:
        return self.health()

    async def _user_of(self, task: str) -> str:
        """Whose task it is: as its base was asked for, or, of an earlier life's, as the stream has it."""
        if task not in self._users:
            decisions = await self._bus.replay(f"evt.*.{task}.task.*", limit=1) if is_token(task) else []
            if not decisions:
                raise Refused("There is no such task.", "not_found")
            self._remember(task, decisions[0].subject.split(".")[1])
        return self._users[task]

    def _remember(self, task: str, user: str) -> None:
        self._users[task] = user
        while len(self._users) > TASKS_LIMIT:
            self._users.popitem(last=False)

    async def _address(self, text: str, user: str) -> Address:
        address = on_disk(parse(text, is_owner=user == OWNER), self._data, self._data / OPEN_FOLDER)
        is_private = not address.for_owner and await self._credentials.has_own(address, user)
        return replace(address, private_to=user) if is_private else address

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._data).free
        if free < self._config.free_bytes:
            raise Refused(
                f"The server's disk has only {free // 2**20} MiB free; Errand takes no work below "
                f"{self._config.free_bytes // 2**20} MiB (ERRAND_FREE_BYTES).",
                "unavailable",
            )
