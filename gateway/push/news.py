"""What of a task's life a person is told by push, in which words, and on which devices. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import Device, Task
from protocol.task import (
    AnyTaskEvent,
    Decision,
    Published,
    Question,
    QuestionKind,
    QuestionRaised,
    TaskState,
    TurnEnded,
)

STATES = (TaskState.WAITING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
"""Only decisions that lead to one of these can be news."""
TITLE_CHARS = 80
BODY_CHARS = 120
WINDOW_SECONDS = 60.0
DEVICES_LIMIT = 10_000
"""Devices whose pushes are counted; the one not told anything for longest is forgotten first."""
HEADLINES = {
    TaskState.SUCCEEDED: "Done",
    TaskState.FAILED: "Failed",
    TaskState.CANCELLED: "Cancelled",
}

E = TypeVar("E", QuestionRaised, TurnEnded)


class News(Struct, frozen=True):
    """What the device shows."""

    title: str
    body: str
    tag: str
    """Of two with the same tag, the newer one replaces the older on the screen: a task has one."""
    url: str
    """Where a tap leads, on the page."""
    urgent: bool = False
    """Somebody waits for an answer."""
    by: str = ""
    """The device that did it, which knows."""


def tells(decision: Decision) -> QuestionRaised | TurnEnded | None:
    """The event that may be news: a question, or an outcome that no next turn followed at once."""
    if decision.state is TaskState.WAITING:
        return _last(decision.events, QuestionRaised)
    return _last(decision.events, TurnEnded) if decision.state in HEADLINES else None


def _last(events: Iterable[AnyTaskEvent], kind: type[E]) -> E | None:
    return next((event for event in reversed(tuple(events)) if isinstance(event, kind)), None)


def news_of(task: Task, event: QuestionRaised | TurnEnded) -> News | None:
    """What to tell of an event of `task`, as the task stands now; None when it has gone on since."""
    if isinstance(event, QuestionRaised):
        if task.question is None or task.question.id != event.question.id:
            return None
        return _news(task, "Needs you", _asked(event.question), urgent=True)
    if task.is_open or task.turn != event.turn:
        return None
    told = _news(task, HEADLINES[event.outcome], _outcome(event))
    return replace(told, by=event.device) if event.outcome is TaskState.CANCELLED else told


def _asked(question: Question) -> str:
    """With what is to be approved: a push is encrypted to the device, and read on it alone (RFC 8291)."""
    return f"{question.text} {question.input}" if question.kind is QuestionKind.APPROVAL else question.text


def _outcome(event: TurnEnded) -> str:
    if event.outcome is TaskState.SUCCEEDED:
        return f"{_where(event.published)}{event.summary}"
    return event.reason


def _where(published: Published | None) -> str:
    return f"Branch {published.branch}. " if published else ""


def _news(task: Task, headline: str, body: str, *, urgent: bool = False) -> News:
    return News(
        title=f"{headline}: {one_line(task.title, TITLE_CHARS)}",
        body=one_line(body, BODY_CHARS),
        tag=task.id,
        url=f"/#/task/{task.id}",
        urgent=urgent,
    )


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters, none of which breaks the line or turns the direction of reading."""
    # Of a long text the beginning is enough, whatever white space it has.
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def devices_to_tell(devices: Iterable[Device], news: News) -> Iterator[Device]:
    """Those that wish to be told, without the one that did it. Whether they look is asked when they are told."""
    return (device for device in devices if device.push is not None and device.id != news.by)


class Pace:
    """No flood: so many pushes a device and minute, and the last of them says that there is more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._told: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, device: str, news: News, now: float) -> News | None:
        """What may be sent to the device at the time `now`, in seconds; None over the limit."""
        told = self._told.setdefault(device, deque())
        self._told.move_to_end(device)
        if len(self._told) > DEVICES_LIMIT:
            self._told.popitem(last=False)
        while told and now - told[0] >= WINDOW_SECONDS:
            told.popleft()
        if len(told) >= self._limit:
            return None
        told.append(now)
        return news if len(told) < self._limit else _more(news)

    def take_back(self, device: str) -> None:
        """What was admitted last could not be sent."""
        if told := self._told.get(device):
            told.pop()


def _more(news: News) -> News:
    return replace(news, title="A lot is happening", body="Open Errand to see all of it.", tag="more", url="/#/")
