"""A whole house in one event loop: real schedulers, real runners with the real agent loop, on a bus in memory; the
model, the sandbox, the repositories and the users are played. Everything that happens follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import anyio
import anyio.abc

from agents.contract import ModelRequest, OnDelta
from protocol.evolve import Task, User, evolve, evolve_user
from protocol.history import AskReached, HistoryReached
from protocol.ids import OWNER, task_id
from protocol.journal import ModelReply
from protocol.repo import (
    BaseResolved,
    PrepareWorkspace,
    Publish,
    PublishDone,
    ReleaseWorkspace,
    ResolveBase,
    WorkspacePrepared,
    WorkspaceReleased,
)
from protocol.routes import Service, command_subject, user_command_subject
from protocol.rules import Rule, RuleAction
from protocol.schedule import CatchUp, Submission
from protocol.task import (
    OUTCOMES,
    AnswerQuestion,
    ApproveQuestion,
    ArchiveTask,
    CancelTask,
    DenyQuestion,
    PauseTask,
    Published,
    Question,
    QuestionKind,
    ResumeTask,
    RetryTask,
    SendMessage,
    SetPriority,
    SubmitTask,
    TagTask,
    TaskCommand,
    TaskState,
    Usage,
    decode_decision,
)
from protocol.user import (
    AddSchedule,
    AddUser,
    PauseSchedule,
    Role,
    SetDailyLimit,
    SetQueue,
    UserCommand,
    decode_user_decision,
)
from sandbox.contract import Capabilities, Checkpoint, ExecResult, SandboxDied, SandboxSpec
from sandbox.egress.policy import Egress
from services.archive import archived, unpack
from services.bus import ARCHIVE, Refused, Stored, Unavailable
from services.runner.runner import Config as RunnerConfig
from services.runner.runner import Runner
from services.scheduler.scheduler import Config as SchedulerConfig
from services.scheduler.scheduler import Scheduler
from tests.simulation.clockwork import VirtualClock
from tests.simulation.memory import Link, MemoryBus, Server, Weather, connect, run_timers

STORM_SECONDS = 40.0
ARCHIVE_AFTER_DAYS = 5 / 86_400
CALM_SECONDS = 240.0
"""How long the house may take, once nothing breaks any more, until every task has its outcome."""
SKEW_SECONDS = 0.2
"""How wrong a scheduler's clock may be."""
TIDY_SECONDS = 10.0
"""What is left to do then that nobody waits for: timers are taken away."""
SCHEDULERS = 2
RUNNERS = (("default", ""), ("default", "arm64"), ("gpu", "gpu"))
"""The queue and the labels of each."""
PLACES: tuple[tuple[str, tuple[str, ...]], ...] = (("default", ()), ("default", ("arm64",)), ("gpu", ()))
"""What a task may ask for."""
TASKS = 4
RUNNING_PER_USER = 2
USERS = ("owner", "ubob")


class NotSettled(Exception):
    """Something still waits though nothing has been broken for long."""


class PlayedModel:
    """Works for a while and then finishes; asks the user at times; hangs now and then, past all it promises."""

    scripted = True
    quiet_seconds = 3.0

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def load(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        return Usage(input_tokens=10, output_tokens=10, cost_usd=0.001)

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        await anyio.sleep(self._chance.uniform(0.05, 2.0))
        if self._chance.random() < 0.01:
            await anyio.sleep_forever()
        calls = sum(message["role"] == "assistant" for message in request.messages)
        name, given = self._next(calls)
        content = ({"type": "tool_use", "id": f"toolu_{calls}_{len(request.messages)}", "name": name, "input": given},)
        return ModelReply(content=content, stop_reason="tool_use", usage=Usage(output_tokens=1, cost_usd=0.0001))

    def _next(self, calls: int) -> tuple[str, dict[str, Any]]:
        drawn = self._chance.random()
        if drawn < 0.35 or calls > 12:
            return "finish", {"summary": "Done.", "commit_message": "Do it"}
        if drawn < 0.5:
            late = {"default_answer": "blue", "minutes": 1} if self._chance.random() < 0.5 else {}
            return "ask_user", {"question": "Which colour?", **late}
        return "bash", {"command": "make"}


class PlayedSandbox:
    """Counts its commands as changes; may die under one."""

    def __init__(self, chance: random.Random, weather: Weather) -> None:
        self._chance = chance
        self._weather = weather
        self._changes = 0

    async def exec(self, command: str, **_: Any) -> ExecResult:
        await anyio.sleep(self._chance.uniform(0.0, 1.5))
        if self._weather.loses():
            raise SandboxDied("its exec server ended")
        self._changes += 1
        return ExecResult(exit_code=0, output="ok")

    async def shell(self, command: str, **given: Any) -> ExecResult:
        return await self.exec(command, **given)

    async def resume(self, name: str, **given: Any) -> ExecResult | None:
        return None

    async def restart_shell(self) -> None:
        pass

    async def read(self, path: str, limit_bytes: int = 0) -> bytes:
        return b""

    async def write(self, path: str, data: bytes) -> None:
        pass

    async def checkpoint(self, base: str, message: str, *, advance: bool = False, unless: str = "") -> Checkpoint:
        commit = f"{self._changes:040d}" if self._changes else base
        bundle = b"" if commit in (unless, base) else b"bundle"
        return Checkpoint(head=commit if advance else base, commit=commit, tree=commit, bundle=bundle)

    async def restore(self, checkpoint: Checkpoint) -> None:
        self._changes = int(checkpoint.commit)

    def let_go(self) -> None:
        pass

    @property
    def death(self) -> str:
        return ""

    async def leave(self) -> bool:
        return False

    async def stop(self) -> None:
        pass


class PlayedDrivers:
    """The same one, but for moments without any."""

    why = notice = ""
    egress = Egress()
    ignored_bytes = 0
    warnings: tuple[str, ...] = ()

    def __init__(self, driver: PlayedDriver, chance: random.Random) -> None:
        self.driver: PlayedDriver | None = None
        self.found = anyio.Event()
        self._driver = driver
        self._chance = chance

    async def keep(self, tell: Callable[[str, str], None]) -> None:
        while True:
            self.driver = self._driver
            self.found.set()
            await anyio.sleep(self._chance.uniform(0.0, 20.0))
            self.driver, self.found = None, anyio.Event()
            await anyio.sleep(self._chance.uniform(0.0, 3.0))

    async def close(self) -> None:
        """It holds nothing."""


class PlayedDriver:
    name = "played"
    copies_workspaces = False

    def __init__(self, chance: random.Random, weather: Weather) -> None:
        self._chance = chance
        self._weather = weather

    async def capabilities(self) -> Capabilities:
        return Capabilities(isolated=True, memory_limit=True, disk_limit=True, process_limit=True)

    async def reattach(self, spec: SandboxSpec, previous: int) -> PlayedSandbox | None:
        return None

    async def sweep(self) -> int:
        return 0

    async def start(self, spec: SandboxSpec) -> PlayedSandbox:
        await anyio.sleep(self._chance.uniform(0.0, 0.3))
        return PlayedSandbox(self._chance, self._weather)


@contextmanager
def unpacked() -> Iterator[None]:
    """An `Unavailable` that task groups wrapped, as it was."""
    try:
        yield
    except* Unavailable as group:
        raise Unavailable(str(group)) from group


class Process:
    """A service that can be killed, frozen and cut off; it comes back."""

    def __init__(self, start: Callable[[Link], Awaitable[None]], name: str) -> None:
        self.name = name
        self.link = Link()
        self.bus: MemoryBus | None = None
        self._start = start
        self._scope: anyio.CancelScope | None = None

    async def live(self) -> None:
        """Run, and run again after each kill, or after it gave up without NATS, as under a supervisor."""
        while True:
            self.link = Link()
            with anyio.CancelScope() as self._scope:
                with suppress(Unavailable), unpacked():
                    await self._start(self.link)
            await anyio.sleep(0.5)

    def kill(self) -> None:
        self.link.dead = True
        self.link.thaw()
        self.link.join()
        if self._scope is not None:
            self._scope.cancel()


class World:
    """One run of a seed. `play` returns when everything has settled."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.weather = Weather(self.chance)
        self.server = Server(VirtualClock())
        self.sent: dict[str, set[str]] = {}
        """The keys of the commands that were acknowledged, by task."""
        self.users: dict[str, str] = {}
        limit = self.chance.choice((None, None, 0.0, 0.0015, 0.01))
        self.config = SchedulerConfig(
            running_per_user=RUNNING_PER_USER,
            snapshot_messages=20,
            archive_after_days=ARCHIVE_AFTER_DAYS,
            daily_usd_per_user=limit,
            user_log_messages=3,
        )
        self.told: set[str] = set()
        """The keys of the commands to the owner's log that were acknowledged."""
        self.processes = [
            *(Process(self._scheduler, f"scheduler {number}") for number in range(SCHEDULERS)),
            *(Process(partial(self._runner, *kind), f"runner {kind}") for kind in RUNNERS),
            Process(self._repos, "repos"),
            Process(self._history, "history"),
        ]

    async def play(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(run_timers, self.server, self.weather)
            for process in self.processes:
                group.start_soon(process.live)
            async with connect(self.server, Service.GATEWAY, self.weather) as phone:
                async with anyio.create_task_group() as storm:
                    storm.start_soon(self._break_things)
                    for number in range(TASKS):
                        storm.start_soon(self._use, phone, f"submit-{number}", self.chance.choice(USERS))
                    storm.start_soon(self._answer_questions, phone)
                    storm.start_soon(self._hold_queues_back, phone)
                    storm.start_soon(self._schedule, phone)
                    await anyio.sleep(STORM_SECONDS)
                    storm.cancel_scope.cancel()
                self._calm_down()
                with anyio.move_on_after(CALM_SECONDS) as patience:
                    async with anyio.create_task_group() as calm:
                        calm.start_soon(self._answer_questions, phone)
                        calm.start_soon(self._keep_queues_served, phone)
                        calm.start_soon(self._resume_what_is_paused, phone)
                        calm.start_soon(self._lift_limits, phone)
                        calm.start_soon(self._pause_schedule, phone)
                        while not self.settled():
                            await anyio.sleep(0.5)
                        await anyio.sleep(TIDY_SECONDS)
                        calm.cancel_scope.cancel()
                if patience.cancelled_caught:
                    raise NotSettled(f"after {CALM_SECONDS:g} s of calm: {self.unsettled()}")
            group.cancel_scope.cancel()

    # The house

    async def _scheduler(self, link: Link) -> None:
        skew = timedelta(seconds=SKEW_SECONDS * self.chance.uniform(-1, 1))
        async with connect(self.server, Service.SCHEDULER, self.weather, link) as bus:
            await self.make_scheduler(bus, VirtualClock(skew)).run(lambda: None)

    def make_scheduler(self, bus: MemoryBus, clock: VirtualClock) -> Scheduler:
        scheduler = Scheduler(bus, self.config, clock)  # type: ignore[arg-type]
        scheduler.pace.look_seconds = 2.0
        return scheduler

    async def _runner(self, queue: str, labels: str, link: Link) -> None:
        config = RunnerConfig(data="", slots=2, queue=queue, labels=labels, scripted=True, hold_question_seconds=3.0)
        async with connect(self.server, Service.RUNNER, self.weather, link) as bus:
            model = PlayedModel(self.chance)
            drivers = PlayedDrivers(PlayedDriver(self.chance, self.weather), self.chance)
            await Runner(bus, config, model, drivers, VirtualClock()).run(lambda: None)  # type: ignore[arg-type]

    async def _repos(self, link: Link) -> None:
        async with connect(self.server, Service.REPOS, self.weather, link) as bus:
            handlers: dict[type, Callable[[Any], Awaitable[Any]]] = {
                ResolveBase: self._resolve,
                PrepareWorkspace: self._prepare,
                ReleaseWorkspace: self._release,
                Publish: self._publish,
            }
            await bus.serve(handlers, version="0", joined=handlers)
            await anyio.sleep_forever()

    async def _history(self, link: Link) -> None:
        async with connect(self.server, Service.HISTORY, self.weather, link) as bus:
            await bus.serve({AskReached: self._reached}, version="0")
            await anyio.sleep_forever()

    async def _reached(self, asked: AskReached) -> HistoryReached:
        if self.weather.loses():
            raise Refused("The history is behind.", "unavailable")
        return HistoryReached(sequence=self.server.sequence)

    async def _resolve(self, asked: ResolveBase) -> BaseResolved:
        if self.weather.loses():
            raise Refused("The git host does not answer.", "unavailable")
        return BaseResolved(commit="0" * 40)

    async def _prepare(self, asked: PrepareWorkspace) -> WorkspacePrepared:
        return WorkspacePrepared(path="/tree")

    async def _release(self, asked: ReleaseWorkspace) -> WorkspaceReleased:
        return WorkspaceReleased()

    async def _publish(self, asked: Publish) -> PublishDone:
        await anyio.sleep(self.chance.uniform(0.0, 0.5))
        return PublishDone(published=Published(asked.branch, asked.commit, asked.base_commit, "https://git.example/x"))

    # The users

    async def _use(self, phone: MemoryBus, key: str, user: str) -> None:
        """Submit a task, then talk to it, stop it, and send things twice."""
        task = task_id(user, key)
        self.users[task] = user
        await anyio.sleep(self.chance.uniform(0, STORM_SECONDS / 2))
        rules = self.chance.choice(
            ((), (), *((Rule(action=RuleAction.ASK, tool=tool),) for tool in ("bash", "finish")))
        )
        submit = SubmitTask(
            key=key, prompt="do it", repository="https://git.example/x", rules=rules, **self._draw_waits()
        )
        await self._send(phone, task, submit)
        for number in range(self.chance.randint(0, 6)):
            await anyio.sleep(self.chance.uniform(0, 8))
            await self._send(phone, task, self._wish(number))

    def _wish(self, number: int) -> TaskCommand:
        """What a user may say to a task at any time."""
        wishes = {"say": 4, "cancel": 2, "pause": 3, "resume": 2, "retry": 2, "tag": 1, "archive": 2, "prioritize": 1}
        match self.chance.choices(tuple(wishes), tuple(wishes.values()))[0]:
            case "prioritize":
                return SetPriority(key=f"prioritize-{number}", priority=self.chance.randint(-11, 11))
            case "cancel":
                return CancelTask(key=f"cancel-{number}")
            case "pause":
                return PauseTask(key=f"pause-{number}")
            case "resume":
                return ResumeTask(key=f"resume-{number}")
            case "tag":
                return TagTask(key=f"tag-{number}", add=(f"t{number}",), remove=("t0",))
            case "retry":
                return RetryTask(key=f"retry-{number}")
            case "archive":
                return ArchiveTask(key=f"archive-{number}")
            case _:
                return SendMessage(key=f"say-{number}", text="also this")

    async def _schedule(self, phone: MemoryBus) -> None:
        """A task a minute, by the owner's calendar."""
        submission = Submission(prompt="do it", repository="https://git.example/x")
        await self._say_for_the_owner(phone, AddUser(key="owner", name="owner", role=Role.OWNER))
        command = AddSchedule(
            key="schedule",
            schedule="s1",
            name="s",
            cron="* * * * *",
            time_zone="UTC",
            submission=submission,
            catch_up=self.chance.choice(list(CatchUp)),
        )
        await self._say_for_the_owner(phone, command)

    async def _pause_schedule(self, phone: MemoryBus) -> None:
        await self._say_for_the_owner(phone, PauseSchedule(key="pause", schedule="s1"))

    def _draw_waits(self) -> dict[str, Any]:
        chance = self.chance
        start = self.server.clock.now() + timedelta(seconds=chance.uniform(-5, 20))
        return {
            "start_at": start if chance.random() < 0.2 else None,
            "queue_seconds": chance.uniform(1, 30) if chance.random() < 0.2 else None,
            "turn_seconds": chance.uniform(1, 60) if chance.random() < 0.2 else None,
        }

    async def _send(self, phone: MemoryBus, task: str, command: TaskCommand) -> None:
        """Until it is acknowledged, and at times once more, long after."""
        subject = command_subject(self.users[task], task, command)
        for _ in range(1 + (self.chance.random() < 0.2)):
            while True:
                with suppress(Unavailable):
                    await phone.publish(subject, command, key=f"{task}.{command.key}.{self.chance.random()}")
                    break
            self.sent.setdefault(task, set()).add(command.key)

    async def _lift_limits(self, phone: MemoryBus) -> None:
        """The owner lets everybody spend what they need: what waits for the next day goes on."""
        for user in USERS:
            name = AddUser(key="add", name=user, role=Role.OWNER if user == OWNER else Role.USER)
            for command in (name, SetDailyLimit(key="limit", daily_usd=None)):
                await self._say(phone, user, command)

    async def _answer_questions(self, phone: MemoryBus) -> None:
        while True:
            await anyio.sleep(self.chance.uniform(0.5, 4))
            for task in list(self.users):
                question = self.state(task).question
                if question is not None:
                    await self._send(phone, task, self._reply(question, f"{question.id}-{self.state(task).turn}"))

    def _reply(self, question: Question, key: str) -> TaskCommand:
        if question.kind is QuestionKind.ANSWER:
            return AnswerQuestion(key=f"answer-{key}", question=question.id, text="blue")
        if self.chance.random() < 0.3:
            return DenyQuestion(key=f"deny-{key}", question=question.id, reason="not so")
        return ApproveQuestion(key=f"approve-{key}", question=question.id)

    async def _resume_what_is_paused(self, phone: MemoryBus) -> None:
        number = 0
        while True:
            await anyio.sleep(self.chance.uniform(0.5, 4))
            for task in list(self.users):
                if self.state(task).state is TaskState.PAUSED:
                    await self._send(phone, task, ResumeTask(key=f"go-on-{number}"))
            number += 1

    async def _hold_queues_back(self, phone: MemoryBus) -> None:
        """The owner pauses a queue for a while, and limits it."""
        await self._say_for_the_owner(phone, AddUser(key="owner", name="owner", role=Role.OWNER))
        for number in count():
            await anyio.sleep(self.chance.uniform(2, 20))
            queue = self.chance.choice(PLACES)[0]
            limit = self.chance.choice((None, 1, 2))
            await self._say_for_the_owner(
                phone, SetQueue(key=f"pause-{number}", queue=queue, paused=True, running_limit=limit)
            )
            await anyio.sleep(self.chance.uniform(0, 5))
            await self._serve_queues(phone, f"serve-{number}")

    async def _keep_queues_served(self, phone: MemoryBus) -> None:
        """A pause that was under way when the storm ended may come later than the first of these."""
        for number in count():
            await self._serve_queues(phone, f"at-last-{number}")
            await anyio.sleep(20)

    async def _serve_queues(self, phone: MemoryBus, key: str) -> None:
        for queue in {queue: None for queue, _ in PLACES}:
            await self._say_for_the_owner(phone, SetQueue(key=f"{key}-{queue}", queue=queue, paused=False))

    async def _say_for_the_owner(self, phone: MemoryBus, command: UserCommand) -> None:
        await self._say(phone, OWNER, command)

    async def _say(self, phone: MemoryBus, user: str, command: UserCommand) -> None:
        """Until it is acknowledged; to the user's log."""
        while True:
            with suppress(Unavailable):
                await phone.publish(user_command_subject(user, command), command, key=f"{user}.{command.key}")
                if user == OWNER:
                    self.told.add(command.key)
                return

    # What goes wrong

    async def _break_things(self) -> None:
        while True:
            await anyio.sleep(self.chance.expovariate(1 / 2))
            process = self.chance.choice(self.processes)
            match self.chance.choice(("kill", "kill", "freeze", "freeze", "cut", "restart")):
                case "kill":
                    process.kill()
                case "freeze":
                    process.link.freeze()
                    await anyio.sleep(self.chance.uniform(0.5, 9))
                    process.link.thaw()
                case "cut":
                    process.link.cut()
                    await anyio.sleep(self.chance.uniform(0.5, 7))
                    self._join(process.link)
                case _:
                    await self._restart_server()

    async def _restart_server(self) -> None:
        links = [connection.link for connection in self.server.connections]
        for link in links:
            link.cut()
        self.server.forget_leases()
        await anyio.sleep(self.chance.uniform(0.2, 2))
        for link in links:
            self._join(link)

    def _join(self, link: Link) -> None:
        for connection in self.server.connections:
            if connection.link is link:
                connection.rejoin()

    def _calm_down(self) -> None:
        self.weather.calm = True
        for connection in self.server.connections:
            connection.link.thaw()
            connection.rejoin()

    # What is so

    def state(self, task: str) -> Task:
        user = self.users[task]
        state = Task(id=task, user=user)
        for stored in self.server.find(f"evt.{user}.{task}.task.>"):
            state = evolve(state, decode_decision(stored.data))
        return state

    def log(self, task: str) -> list[Stored]:
        """The whole log, and that what has left the stream is in the archive it names."""
        log = self.server.find(f"evt.{self.users[task]}.{task}.>")
        first = archived(decode_decision(log[0].data)) if log and ".task." in log[0].subject else None
        return [*unpack(self.server.blobs[ARCHIVE, first.archive]), *log] if first else log

    def owner(self) -> User:
        """As the log has it; the tasks of its schedule are played with like all others."""
        user = User(id=OWNER)
        for stored in self.server.find(f"evt.{OWNER}.user.>"):
            user = evolve_user(user, decode_user_decision(stored.data))
            self.users.update((run.task, OWNER) for one in user.schedules.values() for run in one.runs)
        return user

    def settled(self) -> bool:
        return not self.unsettled()

    def unsettled(self) -> list[str]:
        """What still waits, a line each."""
        # One whose time has come fires, and changes nothing.
        soon = self.server.clock.now() + timedelta(seconds=SKEW_SECONDS)
        lines = [f"{timer.subject} is set" for timer in self.server.timers.values() if timer.due > soon]
        owner = self.owner()
        lines += [f"{key} has no receipt" for key in sorted(self.told - set(owner.receipts))]
        lines += [f"a run of {run.due} is open" for one in owner.schedules.values() for run in one.runs]
        for task in self.users:
            state = self.state(task)
            if (missing := self.sent.get(task, set()) - set(state.receipts)) or state.state not in OUTCOMES:
                lines.append(f"{task} is {state.state} ({state.reason!r}), without receipt: {sorted(missing)}")
        return lines
