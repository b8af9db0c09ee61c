"""Sandboxes by a Docker Engine: hard limits of memory, processes and processor time, and an image with everyday tools.

The exec server is PID 1 of the container. It ends with the stream to its runner or, once it has a task, with that
runner's lease, and the engine removes a container that has ended. Until then another runner can take it over. What an
engine that died itself left, `sweep` removes.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from sandbox.client import ExecClient
from sandbox.config import Config, limits, setup_rules
from sandbox.container import SERVER, WORKSPACE, ContainerLink, ContainerSpec, Mount, container_config
from sandbox.contract import (
    KEPT,
    SETUP_FOLDER,
    BorrowWorkspace,
    Capabilities,
    ImageMissing,
    SandboxDied,
    SandboxError,
    SandboxSpec,
    SandboxUnavailable,
    Setup,
    SetupWatch,
)
from sandbox.disk import EMPTY, PREPARED, Disk, fill, make_disk, make_disk_file, why_no_device, why_no_file_system
from sandbox.egress.environment import GATE_INSIDE
from sandbox.egress.outside import Outside
from sandbox.engine import Engine, EngineError
from sandbox.folders import check_folders, give, is_root, own, task_uid, usable
from sandbox.image import Image, on_its_base
from sandbox.lent_disk import LentDisk, lender
from sandbox.limits import SetupRules
from sandbox.machine import Machine, Told, Wishes, machine_of
from sandbox.owners import Owners
from sandbox.prepared_images import KEPT_IMAGES, PreparedImages
from sandbox.register import ENDS, Register, message, reopened
from sandbox.removal import discard_tree
from sandbox.setup import Setups, unpack
from sandbox.spare import Ahead, Spare, hand_over, start_spare

LABEL = "errand"
ON_A_DISK = "on a disk of its own, "
SETUP = "setup"
"""Stands for the task of a container in which a set-up is kept."""
OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/")
UNLIMITED_DISK = "A workspace has no limit of disk ({why}): a task can fill the one that the workspaces are on."
NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_.-]+")


class Docker:
    """The driver for machines with a container engine."""

    name = "docker"

    def __init__(
        self,
        engine: Engine,
        image: Image,
        register: Register,
        wishes: Wishes | None = None,
        outside: Outside | None = None,
        rules: SetupRules | None = None,
    ) -> None:
        self.image = image
        self._engine = engine
        self._register = register
        self._owners = register.owners
        self._wishes = wishes or Wishes()
        self._outside = outside or Outside()
        rules = rules or SetupRules()
        store = PreparedImages(engine, image, self._owners, self._holding, builds=rules.dockerfiles)
        self.setups = Setups(self._owners.folder, store, self.start, rules)
        self._machine: Machine | None = None
        self._changes: tuple[str, ...] = ()
        """Sentences on an image that got another's name."""

    @property
    def copies_workspaces(self) -> bool:
        return self._machine is not None and self._machine.disk_limit

    @property
    def ground(self) -> str:
        return ground_of(self._machine) if self._machine is not None else ""

    async def capabilities(self) -> Capabilities:
        """ImageMissing when the image has to be made first. The first time, a container is tried; again when the name
        of the image is another image's by now."""
        with self._answers():
            image = await self.image.id()
        if not image:
            raise ImageMissing(f"the Docker sandbox's image {self.image.name} has to be made first")
        if self._machine is not None and self._machine.image != image:
            self._changes += (f"The image {self.image.name} was {self._machine.image} and is {image} now.",)
            self._machine = None
        machine = await self._look()
        ends = () if self._register.keeps else (ENDS,)
        return Capabilities(
            isolated=True,
            memory_limit=machine.memory_limit,
            disk_limit=machine.disk_limit,
            process_limit=machine.process_limit,
            egress=machine.is_known,
            reattach=self._keeps,
            prepared_image=True,
            facts={
                "engine": f"Docker Engine {machine.version}, runtime {machine.runtime}",
                "image": f"{self.image.name} is {machine.image}{on_its_base(machine.base)}",
                "limits": machine.limits.in_words(
                    memory=machine.memory_limit, disk=machine.disk_limit, processes=machine.process_limit
                ),
            },
            warnings=(*machine.warnings, *self._changes),
            notes=(*machine.missing, *ends),
        )

    @property
    def _keeps(self) -> bool:
        """Whether sandboxes outlive their runner."""
        return self._register.keeps and self._machine is not None and self._machine.is_known

    async def start(self, spec: SandboxSpec) -> ExecClient:
        """SandboxUnavailable where this machine forbids it; SandboxError when a folder of `spec` cannot be used."""
        uid = user(spec.task)
        check_folders(spec, uid)
        if is_root():
            await anyio.to_thread.run_sync(give, spec.workspace, uid)
        machine = await self._look()
        client = await self._start(machine, spec, uid)
        async with client.or_stopped():
            if machine.disk_limit:
                await fill(client)
            await self._hold(client, spec)
        return client

    async def reattach(self, spec: SandboxSpec, previous: int) -> ExecClient | None:
        await self._look()
        entry = self._register.left_by(spec.task, previous)
        if entry is None or not entry.container or not self._keeps:
            return None
        client = self._register.client(spec, entry.key, is_taken_over=True)
        link = ContainerLink(self._engine, entry.container, client)
        client.attach(link)
        try:
            async with client.or_stopped():
                await link.take_over(message(spec.attempt, previous, self._register.lease_seconds))
                await client.ready()
                await self._hold(client, spec)
        except (EngineError, SandboxDied):
            return None
        return await reopened(client, spec, self._register, self._outside)

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """As `Driver.prepare`."""
        with self._answers():
            return await self.setups.prepare(setup, borrow, watch)

    async def spare(self, ahead: Ahead) -> Spare:
        """A sandbox without a task. SandboxError as `start`."""
        machine = await self._look()
        with usable():
            folder = self._owners.own_folder()
        return await start_spare(folder, ahead, partial(self._start, machine), ground_of(machine))

    async def assign(self, spare: Spare, spec: SandboxSpec) -> None:
        """Make the spare, over its workspace by now, the sandbox of `spec`. Labels stay; the name says whose it is.
        SandboxError as `start`."""
        if spare.ground.startswith(ON_A_DISK):
            await fill(spare.client)
        hand_over(spare.client, spec)
        self._register.assign(spare.client, spec)
        link = spare.client.link
        assert isinstance(link, ContainerLink)
        link.rename(container_name(spec))
        await self._hold(spare.client, spec)

    async def _hold(self, client: ExecClient, spec: SandboxSpec) -> None:
        """Ours from now on. What earlier attempts of the task have left nobody will want."""
        for entry in self._register.older(spec.task, spec.attempt):
            if entry.key != client.key and entry.container:
                with suppress(SandboxUnavailable, EngineError):
                    await self._engine.remove(entry.container)
                self._register.remove(entry.key)
        assert isinstance(client.link, ContainerLink)
        if self._keeps:
            with usable():
                self._register.hold(client, spec, container=client.link.container)

    async def _start(self, machine: Machine, spec: SandboxSpec, uid: int) -> ExecClient:
        """A sandbox over a workspace that belongs to `uid`, which ends with its stream."""
        with usable():
            client = self._register.client(spec, secrets.token_hex(8))
        try:
            with usable():
                async with client.or_stopped():
                    await self._make(client, machine, spec, uid)
        except (EngineError, SandboxDied) as error:
            if isinstance(error, EngineError) and error.status == 404:
                raise ImageMissing(f"the Docker sandbox's image {spec.image or self.image.name} is gone") from error
            raise SandboxUnavailable(f"Docker could not start the sandbox: {error}") from error
        return client

    async def _make(self, client: ExecClient, machine: Machine, spec: SandboxSpec, uid: int) -> None:
        link = ContainerLink(self._engine, container_name(spec), client)
        client.attach(link)
        labels = self._labels(spec, client.key)
        disk = await self._disk(machine, uid, labels)
        with closing(disk) if disk else nullcontext():
            gate = self._register.make_gate(client.key, uid) if spec.egress.allowed else None
            container = ContainerSpec(
                image=spec.image or machine.image,
                runtime=self._wishes.runtime,
                uid=uid,
                limits=machine.limits,
                mounts=mounts(spec, PREPARED if disk else WORKSPACE, gate, machine.folders),
                labels=labels,
                disk=disk.device if disk else "",
            )
            await link.start(container_config(container), SERVER)
            await client.ready()
        if disk is not None:
            await client.exec(EMPTY)
        if gate is not None:
            from sandbox.egress.way import open_way

            await open_way(client, spec, gate, uid, self._outside)
        if spec.image.startswith(KEPT_IMAGES) and not spec.is_setup:
            await unpack(client)

    async def _disk(self, machine: Machine, uid: int, labels: Mapping[str, str]) -> Disk | LentDisk | None:
        # What a thread makes is waited for also when we are cancelled.
        what = self._owners.own_folder(), machine.limits.disk_bytes, uid
        match machine.disks:
            case "none":
                return None
            case "own":
                return await anyio.to_thread.run_sync(make_disk, *what)
            case "lent":
                file = await anyio.to_thread.run_sync(make_disk_file, *what)
                try:
                    disk = LentDisk(self._engine, f"{LABEL}-disk-{secrets.token_hex(4)}")
                    await disk.borrow(lender(machine.image, as_the_engine_sees(file, machine.folders), labels))
                    return disk
                finally:
                    file.unlink()

    async def sweep(self) -> int:
        """Remove the containers of this installation that no living runner holds; how many there were. What the engine
        refuses is left for the next time."""
        removed = 0
        left = [entry for entry in self._register.all() if not self._register.is_held(entry.key, entry.runner)]
        with suppress(SandboxUnavailable, EngineError):
            ours = f"{LABEL}.installation={self._owners.installation}"
            found = await self._engine.containers(ours)
            for container in found:
                if self._is_left(container["Labels"]):
                    with suppress(EngineError):
                        await self._engine.remove(container["Id"])
                        removed += 1
            there = {container["Labels"].get(f"{LABEL}.key") for container in found}
            for entry in left:
                if entry.key not in there:
                    self._register.remove(entry.key)
            await self._sweep_volumes(ours)
        self._register.tidy()
        with suppress(SandboxError, EngineError):
            await self.setups.tidy_by_the_minute()
        return removed

    async def _sweep_volumes(self, ours: str) -> None:
        """An engine that was itself ended removes its containers when it comes back, and keeps their volumes."""
        for volume in await self._engine.unused_volumes(ours):
            if self._is_left(volume["Labels"]):
                with suppress(EngineError):
                    await self._engine.remove_volume(volume["Name"])

    async def close(self) -> None:
        """When all its sandboxes have stopped."""
        self._owners.release()
        await self._engine.close()

    def _is_left(self, labels: Mapping[str, str]) -> bool:
        """Whether nobody holds it; what has an entry is another runner's to take over, while its lease lasts."""
        key, runner = labels.get(f"{LABEL}.key", ""), labels.get(f"{LABEL}.runner", "")
        entry = self._register.find(key) if key.isalnum() else None
        return self._register.is_over(entry) if entry else not self._register.is_held(key, runner)

    @contextmanager
    def _holding(self) -> Iterator[dict[str, str]]:
        """The labels of a container that is ours within the block."""
        key = secrets.token_hex(8)
        self._register.held.add(key)
        try:
            yield self._labels(SandboxSpec(task=SETUP, attempt=0, workspace=self._owners.folder), key)
        finally:
            self._register.held.discard(key)

    def _labels(self, spec: SandboxSpec, key: str) -> dict[str, str]:
        return {
            f"{LABEL}.installation": self._owners.installation,
            f"{LABEL}.runner": self._owners.runner,
            f"{LABEL}.key": key,
            f"{LABEL}.task": spec.task,
            f"{LABEL}.attempt": str(spec.attempt),
        }

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """SandboxUnavailable for what the engine refuses."""
        try:
            yield
        except EngineError as error:
            raise SandboxUnavailable(f"the Docker Engine at {self._engine.host} refuses: {error}") from error

    async def _look(self) -> Machine:
        """What this engine can do; asked and tried once."""
        if self._machine is None:
            self._owners.hold()
            with self._answers():
                engine, folders = self._engine, await own_folders(self._engine)
                image, base = await self.image.id_and_base()
                told = Told(about=await engine.about(), version=await engine.version(), image=image, base=base)
            self._machine = await self._with_disk(machine_of(told, self._wishes, folders))
        return self._machine

    async def _with_disk(self, machine: Machine) -> Machine:
        """With a limit of disk where that can be had; tried, either way."""
        why = why_no_file_system() if self._wishes.limits.disk_bytes else "ERRAND_SANDBOX_DISK_MIB is 0"
        if not why:
            limited = msgspec.structs.replace(machine, disks="lent" if why_no_device() else "own")
            try:
                await self._try(limited)
                return limited
            except SandboxUnavailable as error:
                why = str(error)
        await self._try(machine)
        return msgspec.structs.replace(machine, missing=(*machine.missing, UNLIMITED_DISK.format(why=why)))

    async def _try(self, machine: Machine) -> None:
        """Start one over a folder of the installation's: an engine elsewhere, or one that maps users, would not do."""
        folder = Path(tempfile.mkdtemp(prefix="try-", dir=self._owners.folder))
        uid = user("try")
        try:
            own(folder, uid)
            write_as(folder / "given", uid)
            spec = SandboxSpec(task="try", attempt=0, workspace=folder)
            sandbox = await self._start(machine, spec, uid)
            async with sandbox.or_stopped():
                if machine.disk_limit:
                    await fill(sandbox)
                used = await sandbox.exec("command -v bash git && cat given && touch written")
            await sandbox.stop()
            written = folder / "written"
            if used.exit_code != 0:
                raise SandboxError(f"it lacks what every task needs: {used.output[-500:]}")
            if not machine.disk_limit and not (written.exists() and written.stat().st_uid == uid):
                raise SandboxError("what it wrote did not arrive")
        except SandboxError as error:
            raise SandboxUnavailable(
                f"the Docker Engine at {self._engine.host} cannot work in {folder.parent}: {error}. It must be on this "
                f"machine; where Errand runs in a container, see docs/running.md"
            ) from error
        finally:
            discard_tree(folder)


def connect(config: Config, host: str, folder: Path, runner: str, outside: Outside | None = None) -> Docker:
    """The driver that the settings say; `folder` is for what all runners of the installation share."""
    return connect_as(config, host, Owners(folder, runner), outside)


def connect_as(config: Config, host: str, owners: Owners, outside: Outside | None = None) -> Docker:
    """`connect` as a runner that has other drivers too."""
    engine = Engine(host)
    image = Image(engine, config.sandbox_image, owners.folder / "image.lock")
    register = Register(owners, Docker.name, config.sandbox_lease_seconds)
    wishes = Wishes(
        limits=limits(config), runtime=config.sandbox_runtime, refuses_faults=config.sandbox_advisories == "refuse"
    )
    return Docker(engine, image, register, wishes, outside, setup_rules(config))


def ground_of(machine: Machine) -> str:
    return f"{ON_A_DISK if machine.disk_limit else ''}{machine.image}"


def user(task: str) -> int:
    """As whom commands run: as we do, that the workspace is theirs too; for root as a uid of the task alone."""
    return task_uid(task) if is_root() else os.geteuid()


def container_name(spec: SandboxSpec) -> str:
    return f"{LABEL}-{NOT_IN_A_NAME.sub('-', spec.task)}-{spec.attempt}-{secrets.token_hex(4)}"


def write_as(path: Path, uid: int) -> None:
    """A file that nobody else can read."""
    path.touch(0o600)
    own(path, uid)


def mounts(spec: SandboxSpec, target: str, gate: Path | None, folders: Mapping[Path, Path]) -> tuple[Mount, ...]:
    """`target` is where the workspace's folder is seen: to be read only when that is not /workspace itself."""
    readonly = {path: str(path) for path in spec.readonly_paths}
    if gate is not None:
        readonly[gate] = GATE_INSIDE
    return (
        Mount(as_the_engine_sees(spec.workspace, folders), target, readonly=target != WORKSPACE),
        *setup_mount(spec, folders),
        *(Mount(as_the_engine_sees(path, folders), target, readonly=True) for path, target in readonly.items()),
    )


def setup_mount(spec: SandboxSpec, folders: Mapping[Path, Path]) -> tuple[Mount, ...]:
    if not spec.is_setup:
        return ()
    return (Mount(as_the_engine_sees(spec.workspace / SETUP_FOLDER, folders), KEPT, readonly=False),)


def as_the_engine_sees(path: Path, folders: Mapping[Path, Path]) -> Path:
    """By the innermost of the folders that were mounted for us."""
    for ours in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        if path.is_relative_to(ours):
            return folders[ours] / path.relative_to(ours)
    return path


async def own_folders(engine: Engine) -> dict[Path, Path]:
    """What the engine mounted into the container that we run in; nothing where we run in none of its own."""
    found = OWN_CONTAINER.search(Path("/proc/self/mountinfo").read_text())
    own = await engine.inspect(found[1]) if found else None
    return {Path(mount["Destination"]): Path(mount["Source"]) for mount in own["Mounts"]} if own else {}
