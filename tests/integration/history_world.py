"""The history's world: random event streams that a house could have written, the rows that they come to by independent
code, and the service as a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import msgspec

from protocol.journal import (
    AnyJournalEvent,
    AttemptStarted,
    CheckpointMade,
    HostRefused,
    JournalEntry,
    ModelCall,
    ModelReply,
    Noticed,
    StepFinished,
    StepLost,
    StepStarted,
    ToolCall,
    ToolResult,
)
from protocol.routes import (
    Service,
    decision_subject,
    journal_subject,
    user_decision_subject,
)
from protocol.task import (
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnded,
    Decision,
    MessageSent,
    PrioritySet,
    Published,
    Question,
    QuestionAnswered,
    QuestionRaised,
    Receipt,
    ReceiptStatus,
    TaskDelayed,
    TaskPaused,
    TaskQueued,
    TaskResumed,
    TaskState,
    TaskSubmitted,
    TaskTagged,
    TurnEnded,
    TurnOpened,
    Usage,
)
from protocol.user import (
    DeviceAdded,
    HostAdded,
    HostKind,
    Role,
    SignInCodeCreated,
    SignInCodeRedeemed,
    UserAdded,
    UserDecision,
)
from tests.integration.nats_house import NatsHouse

Said = tuple[Service, str, Any]
"""Who publishes, on which subject, what."""
SECRETS = ("hash-of-a-device-token", "hash-of-a-code", "sealed-by-the-publisher-key")
"""In every stream's user logs; must never be in a history."""
TEXTS = ("ls -la", "naïve ☎ 電話", 'quote " and \\ and \n', "nul \0 inside", "'; DROP TABLE tasks; --", "", "x" * 3_000)


class _TaskLife:
    """One task's life as the scheduler and its runners would write it, one message at a time."""

    def __init__(self, random: Random, user: str, task: str, clock: Iterator[datetime]) -> None:
        self.random = random
        self.user = user
        self.task = task
        self.clock = clock
        self.attempt = 0
        self.step = 0
        self.messages = 0
        self.open: list[int] = []
        self.commands = 0

    def decide(
        self, state: TaskState, *events: AnyTaskEvent, status: ReceiptStatus | None = ReceiptStatus.CONSUMED
    ) -> Said:
        self.commands += 1
        receipt = Receipt(key=f"{self.task}-{self.commands}", status=status, reason=self.text()) if status else None
        decision = Decision(
            at=next(self.clock), state=state, events=events, receipt=receipt, command_sequence=self.commands
        )
        return Service.SCHEDULER, decision_subject(self.user, self.task, state), decision

    def journal(self, event: AnyJournalEvent) -> Said:
        entry = JournalEntry(attempt=self.attempt, at=next(self.clock), event=event)
        return Service.RUNNER, journal_subject(self.user, self.task, event), entry

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def usage(self) -> Usage:
        # Sixty-fourths add up exactly in whatever order.
        return Usage(
            input_tokens=self.random.randrange(1000),
            cache_read_tokens=self.random.randrange(1000),
            cache_write_tokens=self.random.randrange(1000),
            output_tokens=self.random.randrange(1000),
            cost_usd=self.random.randrange(640) / 64,
        )

    def published(self) -> Published | None:
        if self.random.random() < 0.3:
            return None
        return Published(
            branch=f"errand/{self.task}",
            commit=f"{self.random.getrandbits(160):040x}",
            base_commit="b" * 40,
            pushed_to="https://git.example/x",
            files_changed=self.random.randrange(9),
            insertions=self.random.randrange(99),
            deletions=self.random.randrange(99),
        )

    def live(self) -> Iterator[Said]:
        submitted = TaskSubmitted(
            prompt=self.text(),
            repository=f"https://git.example/{self.random.randrange(3)}",
            title="t",
            labels=("arm64", "gpu")[: self.random.randrange(3)],
            priority=self.random.randint(-10, 10),
            tags=("bug", "ui")[: self.random.randrange(3)],
            metadata={"for": self.text()} if self.random.random() < 0.5 else {},
        )
        if self.random.random() < 0.1:
            yield self.decide(TaskState.QUEUED, status=ReceiptStatus.REJECTED)
            return
        yield self.decide(TaskState.QUEUED, submitted)
        if self.random.random() < 0.1:
            yield self.decide(TaskState.QUEUED, PrioritySet(priority=self.random.randint(-10, 10)))
        for turn in range(1, self.random.randint(1, 3) + 1):
            if self.random.random() < 0.2:
                yield self.decide(
                    TaskState.QUEUED, TaskTagged(tags=("a", "b")[: turn - 1], metadata={"for": self.text()})
                )
            if turn > 1 and self.random.random() < 0.3:
                yield self.decide(TaskState.QUEUED, TurnOpened(turn=turn, retries=turn - 1))
            elif turn > 1:
                self.messages += 1
                said = MessageSent(message=self.messages, text=self.text())
                yield self.decide(TaskState.QUEUED, said, TurnOpened(turn=turn))
            yield from self.take_turn(turn)

    def take_turn(self, turn: int) -> Iterator[Said]:
        while True:
            self.attempt += 1
            claimed = AttemptClaimed(attempt=self.attempt, turn=turn, runner="r1", request=f"q{self.attempt}")
            yield self.decide(TaskState.RUNNING, claimed, status=None)
            yield from self.work(turn)
            match self.random.choice(
                ("finished", "finished", "failed", "again", "lost", "parked", "paused", "cancelled", "left")
            ):
                case "finished":
                    yield from self.finish_open_steps()
                    ended = AttemptEnded(attempt=self.attempt, how="finished", usage=self.usage())
                    yield self.decide(TaskState.SUCCEEDED, ended, self.end(turn, TaskState.SUCCEEDED))
                    return
                case "failed":
                    ended = AttemptEnded(attempt=self.attempt, how="failed", reason=self.text(), usage=self.usage())
                    yield self.decide(TaskState.FAILED, ended, self.end(turn, TaskState.FAILED))
                    return
                case "cancelled":
                    ended = AttemptEnded(attempt=self.attempt, how="cancelled")
                    yield self.decide(TaskState.CANCELLED, ended, self.end(turn, TaskState.CANCELLED))
                    return
                case "again":
                    until = next(self.clock)
                    ended = AttemptEnded(attempt=self.attempt, how="failed", usage=self.usage())
                    yield self.decide(TaskState.DELAYED, ended, TaskDelayed(until=until, reason="busy"))
                    yield self.decide(TaskState.QUEUED, TaskQueued(reason="its time has come"), status=None)
                case "lost":
                    ended = AttemptEnded(attempt=self.attempt, how="lease_lost")
                    yield self.decide(TaskState.QUEUED, ended, TaskQueued(reason="the runner died"), status=None)
                case "paused":
                    yield self.decide(TaskState.PAUSED, TaskPaused(reason="later"))
                    yield self.decide(TaskState.PAUSED, AttemptEnded(attempt=self.attempt, how="parked"))
                    yield self.decide(TaskState.QUEUED, TaskResumed(), TaskQueued(reason="resumed"))
                case "parked":
                    question = Question(id=f"q{self.step}", text=self.text(), choices=("yes", "no"))
                    yield self.decide(TaskState.WAITING, QuestionRaised(question=question))
                    yield self.decide(TaskState.WAITING, AttemptEnded(attempt=self.attempt, how="parked"))
                    answered = QuestionAnswered(question=question.id, text="yes")
                    yield self.decide(TaskState.QUEUED, answered, TaskQueued(reason="answered"))
                case _:
                    return  # the stream ends while the attempt runs

    def end(self, turn: int, outcome: TaskState) -> TurnEnded:
        reason = "" if outcome is TaskState.SUCCEEDED else self.text()
        published = self.published() if outcome is TaskState.SUCCEEDED else None
        return TurnEnded(
            turn=turn, outcome=outcome, summary=self.text(), reason=reason, published=published, usage=self.usage()
        )

    def work(self, turn: int) -> Iterator[Said]:
        yield self.journal(
            AttemptStarted(
                turn=turn, base_commit="b" * 40, branch="main", model="m", sandbox="bubblewrap", restored_step=self.step
            )
        )
        yield from self.finish_open_steps()
        for _ in range(self.random.randrange(6)):
            yield from self.take_step()
            if self.random.random() < 0.1:
                self.messages += 1
                yield self.decide(TaskState.RUNNING, MessageSent(message=self.messages, text=self.text()))

    def take_step(self) -> Iterator[Said]:
        self.step += 1
        self.open.append(self.step)
        if self.random.random() < 0.5:
            yield self.journal(StepStarted(step=self.step, action=ModelCall(reserved_usd=0.5)))
            content = ({"type": "text", "text": self.text()}, {"type": "thinking", "signature": "s", "n": 2**63})
            result = ModelReply(content=content, stop_reason="tool_use", usage=self.usage())
        else:
            arguments = {"command": self.text(), "nested": {"list": [1, 1.5, None, {"": True}]}}
            yield self.journal(StepStarted(step=self.step, action=ToolCall(id="i", name="bash", input=arguments)))
            result = ToolResult(
                text=self.text(), is_error=self.random.random() < 0.3, exit_code=self.random.choice((None, 0, 1))
            )
        if self.random.random() < 0.8:
            self.open.remove(self.step)
            yield self.journal(
                StepFinished(step=self.step, result=result, duration_seconds=self.random.randrange(99) / 8)
            )
        if self.random.random() < 0.2:
            yield self.journal(CheckpointMade(step=self.step, head="main", commit="c", tree="t"))
            yield self.journal(Noticed(text=self.text(), level="warning"))
            yield self.journal(HostRefused(host="example.org", port=443, reason=self.text()))

    def finish_open_steps(self) -> Iterator[Said]:
        for step in self.open:
            yield self.journal(StepFinished(step=step, result=StepLost(reason=self.text(), usage=self.usage())))
        self.open = []


def random_stream(seed: int, tasks: int) -> list[Said]:
    """A valid stream of so many tasks of a few users, their messages interleaved."""
    random = Random(seed)
    clock = (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(milliseconds=123 * n) for n in range(10**9))
    lives = [_user_life(random, f"u{n}", clock) for n in range(3)]
    lives += [_TaskLife(random, f"u{random.randrange(3)}", f"t{n}", clock).live() for n in range(tasks)]
    said: list[Said] = []
    while lives:
        life = random.choice(lives[:20])
        try:
            said.append(next(life))
        except StopIteration:
            lives.remove(life)
    return said


def _user_life(random: Random, user: str, clock: Iterator[datetime]) -> Iterator[Said]:
    device, code, sealed = SECRETS
    later = datetime(2030, 1, 1, tzinfo=UTC)
    added = DeviceAdded(device="d1", device_name="my phone", token_hash=device)
    decisions = (
        (UserAdded(name=f"{user} ☎", role=Role.USER),),
        (SignInCodeCreated(code_hash=code, expires_at=later),),
        (SignInCodeRedeemed(code_hash=code), added),
        (HostAdded(host="git.example", kind=HostKind.TOKEN, sealed=sealed, username="me"),),
        (),
    )
    for events in decisions:
        receipt = Receipt(key=f"{code}-key", status=random.choice(list(ReceiptStatus)), reason="why")
        decision = UserDecision(at=next(clock), events=events, receipt=receipt, command_sequence=7)
        yield Service.SCHEDULER, user_decision_subject(user, decision), decision


# What the rows must be, by code that shares nothing with the history: plain dictionaries, whole stream at once.

Raw = tuple[int, str, bytes]
"""Sequence, subject and data of a message as the stream has it."""
Row = dict[str, Any]
TABLES = ("events", "receipts", "refusals", "users", "tasks", "turns", "attempts", "steps")
USAGE = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")
PUBLISHED = ("branch", "commit", "base_commit", "pushed_to", "files_changed", "insertions", "deletions")


def recompute(stream: Sequence[Raw]) -> dict[str, list[Row]]:
    """Each table's rows, sorted; columns that must be null are left out, and so are names with an underscore first."""
    tables: dict[str, dict[Any, Row]] = {name: {} for name in TABLES}
    for sequence, subject, data in stream:
        message = json.loads(data)
        _, user, *rest = subject.split(".")
        if rest[0] == "user":
            _recompute_user(tables, sequence, user, message)
        elif rest[1] == "journal":
            _recompute_journal(tables, sequence, user, rest[0], message)
        else:
            _recompute_task(tables, sequence, user, rest[0], message)
    return {name: as_comparable(rows.values()) for name, rows in tables.items()}


def as_comparable(rows: Any) -> list[Row]:
    present = [{k: v for k, v in row.items() if v is not None and not k.startswith("_")} for row in rows]
    return sorted(present, key=lambda row: json.dumps(row, sort_keys=True, default=str))


def _usage(event: Row) -> Row:
    return {name: event.get("usage", {}).get(name, 0) for name in USAGE}


def _published(event: Row) -> Row:
    published = event.get("published")
    return {name: published.get(name, 0) for name in PUBLISHED} if published else {}


def _add_event(
    tables: Any, sequence: int, position: int, at: str, user: str, task: str | None, event: Row, **more: Any
) -> None:
    source = more.pop("source")
    tables["events"][sequence, position] = {
        "sequence": sequence, "position": position, "happened_at": at, "user_id": user, "task_id": task,
        "source": source, "kind": event["type"], "payload": event, **more,
    }  # fmt: skip


def _add_receipt(tables: Any, sequence: int, user: str, task: str | None, message: Row) -> None:
    if receipt := message.get("receipt"):
        tables["receipts"][sequence] = {
            "sequence": sequence, "happened_at": message["at"], "user_id": user, "task_id": task,
            "key": receipt["key"] if task else None, "status": receipt["status"],
            "reason": receipt.get("reason", ""), "command_sequence": message.get("command_sequence", 0),
        }  # fmt: skip


def _recompute_user(tables: Any, sequence: int, user: str, message: Row) -> None:
    for position, event in enumerate(message.get("events", ())):
        kept = {k: v for k, v in event.items() if k not in ("token_hash", "code_hash", "sealed")}
        _add_event(tables, sequence, position, message["at"], user, None, kept, source="user")
        if event["type"] == "user_added":
            row = {"user_id": user, "name": event["name"], "role": event["role"], "added_at": message["at"]}
            tables["users"][user] = row
    _add_receipt(tables, sequence, user, None, message)


def _recompute_journal(tables: Any, sequence: int, user: str, task: str, message: Row) -> None:
    event, at, attempt = message["event"], message["at"], message["attempt"]
    step = event.get("step")
    _add_event(tables, sequence, 0, at, user, task, event, source="journal", attempt=attempt, step=step)
    match event["type"]:
        case "host_refused":
            row = {"sequence": sequence, "happened_at": at, "user_id": user, "task_id": task, "attempt": attempt}
            tables["refusals"][sequence] = row | {name: event[name] for name in ("host", "port", "reason")}
        case "attempt_started":
            row = {name: event[name] for name in ("base_commit", "branch", "model", "sandbox")}
            row |= {"started_at": at, "scripted": False, "restored_step": event.get("restored_step", 0)}
            tables["attempts"][task, attempt] |= row
        case "step_started":
            action = event["action"]
            row = {"task_id": task, "step": step, "user_id": user, "attempt": attempt, "started_at": at}
            if action["type"] == "model_call":
                row |= {"kind": "model", "reserved_usd": action["reserved_usd"]}
            else:
                row |= {"kind": "tool", "tool": action["name"], "input": action["input"]}
            tables["steps"][task, step] = row
        case "step_finished":
            result = event["result"]
            row = {"finished_at": at, "duration_seconds": event.get("duration_seconds", 0.0)}
            match result["type"]:
                case "model_reply":
                    row |= {"outcome": "ok", "stop_reason": result["stop_reason"], **_usage(result)}
                case "tool_result":
                    bad = result.get("is_error", False)
                    row |= {"outcome": "error" if bad else "ok", "exit_code": result.get("exit_code")}
                    row |= {"error": result["text"][:2000]} if bad else {}
                case "step_lost":
                    row |= {"outcome": "lost", "error": result["reason"][:2000], **_usage(result)}
            tables["steps"][task, step] |= row


def _recompute_task(tables: Any, sequence: int, user: str, task: str, message: Row) -> None:
    at, said = message["at"], ""
    for position, event in enumerate(message.get("events", ())):
        attempt = event.get("attempt") if event["type"] in ("attempt_claimed", "attempt_ended") else None
        _add_event(tables, sequence, position, at, user, task, event, source="task", attempt=attempt)
        row = tables["tasks"].get(task, {})
        match event["type"]:
            case "task_submitted":
                row = {name: event.get(name, "") for name in ("title", "prompt", "repository", "base", "model")}
                row |= {
                    "task_id": task,
                    "user_id": user,
                    "queue": event.get("queue", "default"),
                    "labels": ",".join(event.get("labels", ())),
                    "schedule": event.get("schedule", ""),
                    "start_at": event.get("start_at"),
                    "priority": event.get("priority", 0),
                    "tags": event.get("tags", []),
                    "metadata": event.get("metadata", {}),
                    "created_at": at,
                    "turns": 1,
                    "attempts": 0,
                }
                row |= {"messages": 0, "reason": "", "summary": "", "_queued_at": at, **dict.fromkeys(USAGE, 0)}
                tables["tasks"][task] = row
                _open_turn(tables, user, task, 1, event["prompt"], at)
            case "priority_set":
                row["priority"] = event["priority"]
            case "task_tagged":
                row |= {"tags": event.get("tags", []), "metadata": event.get("metadata", {})}
            case "task_paused":
                row["reason"] = event["reason"]
            case "task_resumed":
                row["reason"] = ""
            case "message_sent":
                row["messages"], said = event["message"], event["text"]
            case "turn_opened":
                row |= {"turns": event["turn"], "_queued_at": at, "reason": "", "summary": ""}
                _open_turn(tables, user, task, event["turn"], said, at)
                tables["turns"][task, event["turn"]]["retries"] = event.get("retries")
            case "attempt_claimed":
                row |= {"attempts": event["attempt"], "reason": ""}
                tables["attempts"][task, event["attempt"]] = {
                    "task_id": task, "attempt": event["attempt"], "user_id": user, "turn": event["turn"],
                    "runner": event["runner"], "queued_at": row["_queued_at"], "claimed_at": at,
                }  # fmt: skip
            case "attempt_ended":
                ended = {"ended_at": at, "how": event["how"], "reason": event.get("reason", ""), **_usage(event)}
                tables["attempts"][task, event["attempt"]] |= ended
            case "task_queued":
                row |= {"_queued_at": at, "reason": event["reason"], "delayed_until": None}
            case "task_delayed":
                row |= {"delayed_until": event["until"], "reason": event["reason"]}
            case "question_raised":
                row |= {"question": event["question"]["text"], "reason": event["question"]["text"]}
            case "question_answered":
                row |= {"question": None, "reason": ""}
            case "turn_ended":
                ended = {name: event.get(name, "") for name in ("outcome", "reason", "summary")}
                ended |= _published(event)
                tables["turns"][task, event["turn"]] |= {**ended, "ended_at": at, **_usage(event)}
                row |= {**_published(event), "summary": ended["summary"], "reason": ended["reason"]}
                row |= {name: row[name] + spent for name, spent in _usage(event).items()}
                row |= {"question": None, "delayed_until": None}
    if task in tables["tasks"]:
        tables["tasks"][task] |= {"state": message["state"], "updated_at": at}
    _add_receipt(tables, sequence, user, task, message)


def _open_turn(tables: Any, user: str, task: str, turn: int, message: str, at: str) -> None:
    tables["turns"][task, turn] = {"task_id": task, "turn": turn, "user_id": user, "message": message, "opened_at": at}


def rows_of(path: Path) -> dict[str, list[Row]]:
    """The same of a history's file, without the columns that are for the fold itself."""
    found = {}
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in TABLES:
            columns = connection.execute(f"FROM {table} LIMIT 0").description or ()
            select = ", ".join(_readable(name, str(kind)) for name, kind, *_ in columns if name != "fold")
            result = connection.execute(f"SELECT {select} FROM {table}")
            names = [column[0] for column in result.description or ()]
            found[table] = as_comparable(
                {name: _value(name, value) for name, value in zip(names, row, strict=True)} for row in result.fetchall()
            )
    return found


def _readable(name: str, kind: str) -> str:
    return f"{name}::JSON::VARCHAR AS {name}" if kind == "VARIANT" else name


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return msgspec.to_builtins(value.astimezone(UTC))
    return json.loads(value) if name in ("payload", "input") and value is not None else value


# The service as a process.


class HistoryProcess:
    """`python -m services.history` over a house."""

    def __init__(self, house: NatsHouse, data: Path) -> None:
        self.data = data
        self.file = data / "history" / "history.duckdb"
        self.lines: list[dict[str, Any]] = []
        """Its log."""
        self._house = house
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = threading.Condition()

    def start(self) -> None:
        """Return once it answers."""
        config = self._house.bus_config(Service.HISTORY)
        environment = {
            "PATH": os.environ["PATH"],
            "ERRAND_DATA": str(self.data),
            "ERRAND_NATS_URL": config.nats_url,
            "ERRAND_NATS_PASSWORD_FILE": config.nats_password_file,
        }
        self.lines = []
        command = [sys.executable, "-m", "services.history"]
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        self._listener = threading.Thread(target=self._listen, args=(self._process,))
        self._listener.start()
        self.wait_for("started")

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first line of its log that says `event`."""

        def said() -> list[dict[str, Any]]:
            return [line for line in self.lines if line.get("event") == event]

        with self._logged:
            assert self._logged.wait_for(said, timeout=20), self.lines
        return said()[0]

    def wait_for_a_write(self) -> None:
        """Return in the middle of a commit: its write-ahead log has just grown."""
        log = self.file.with_suffix(".duckdb.wal")

        def size() -> int:
            return log.stat().st_size if log.exists() else 0

        before = size()
        while size() == before:
            pass

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def stop(self) -> int:
        """By SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Return its exit code once it is gone."""
        assert self._process is not None
        code = self._process.wait(20)
        self._listener.join()
        self._process = None
        return code

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with self._logged:
                    self.lines.append(json.loads(line) if line.startswith(b"{") else {"text": line.decode()})
                    self._logged.notify_all()
