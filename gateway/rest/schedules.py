"""Tasks that are submitted by the calendar."""

from __future__ import annotations

import secrets

from litestar import Request, Router, delete, get, post
from msgspec import Struct

from gateway import checks
from gateway.errors import Problem
from gateway.rest.account import consumed
from gateway.rest.tasks import SubmitBody, frame_of, key_of
from gateway.tasks import Tasks
from gateway.users import Asker, Users
from protocol.ids import schedule_id
from protocol.live import Submit
from protocol.schedule import CatchUp, Schedule, Submission
from protocol.user import AddSchedule, PauseSchedule, RemoveSchedule, ResumeSchedule
from services import cron


class ScheduleBody(Struct, frozen=True):
    name: str
    cron: str
    """Minute, hour, day of the month, month, day of the week: `0 9 * * 1-5`."""
    time_zone: str
    """An IANA name: `Europe/Berlin`."""
    task: SubmitBody
    """What is submitted, without a start date."""
    catch_up: CatchUp = CatchUp.ONCE
    """What becomes of occurrences that fell due while the server was down."""
    key: str = ""


class Schedules(Struct, frozen=True):
    schedules: tuple[Schedule, ...]


@get("/")
async def list_schedules(asker: Asker, users: Users) -> Schedules:
    """The asker's schedules, the next to be due first; those that are paused at the end."""
    known = list(users.schedules(asker.user).values())
    known.sort(key=lambda one: (one.next_at is None, one.next_at or one.added_at, one.id))
    return Schedules(tuple(known))


@post("/", status_code=201)
async def add_schedule(request: Request, asker: Asker, users: Users, tasks: Tasks, data: ScheduleBody) -> Schedule:
    """Submit a task whenever the cron expression says so. The same key gives the same schedule."""
    key = key_of(request, data.key) or secrets.token_hex(16)
    checks.key(key)
    checks.name(data.name, "name")
    try:
        cron.check(data.cron, data.time_zone)
    except ValueError as error:
        raise Problem(422, str(error), "time_zone" if "time zone" in str(error) else "cron") from None
    if data.task.start_at is not None:
        raise Problem(422, "A schedule says itself when its tasks start: leave `start_at` out.", "task.start_at")
    frame = await tasks.checked(asker, frame_of(data.task, key))
    schedule = schedule_id(asker.user, key)
    command = AddSchedule(
        key=f"add-{schedule}",
        schedule=schedule,
        name=data.name.strip(),
        cron=data.cron,
        time_zone=data.time_zone,
        submission=_submission(frame),
        catch_up=data.catch_up,
    )
    consumed(await users.command(asker.user, command), 422)
    return _known(users, asker, schedule)


@get("/{schedule:str}")
async def show_schedule(asker: Asker, users: Users, schedule: str) -> Schedule:
    """When it is due next, and how its last task ended."""
    return _known(users, asker, schedule)


@post("/{schedule:str}/pause", status_code=200)
async def pause_schedule(asker: Asker, users: Users, schedule: str) -> Schedule:
    """Submit nothing until it is resumed. Its open tasks go on."""
    return await _tell(users, asker, PauseSchedule(key=_key(), schedule=schedule))


@post("/{schedule:str}/resume", status_code=200)
async def resume_schedule(asker: Asker, users: Users, schedule: str) -> Schedule:
    """Go on with the next occurrence from now."""
    return await _tell(users, asker, ResumeSchedule(key=_key(), schedule=schedule))


@delete("/{schedule:str}")
async def remove_schedule(asker: Asker, users: Users, schedule: str) -> None:
    """Submit nothing more by it. Its tasks stay."""
    await _tell(users, asker, RemoveSchedule(key=_key(), schedule=schedule))


async def _tell(users: Users, asker: Asker, command: PauseSchedule | ResumeSchedule | RemoveSchedule) -> Schedule:
    before = _known(users, asker, command.schedule)
    consumed(await users.command(asker.user, command), 409)
    return users.schedules(asker.user).get(command.schedule, before)


def _known(users: Users, asker: Asker, schedule: str) -> Schedule:
    found = users.schedules(asker.user).get(schedule)
    if found is None:
        raise Problem(404, "There is no such schedule.")
    return found


def _submission(frame: Submit) -> Submission:
    return Submission(**{name: getattr(frame, name) for name in Submission.__struct_fields__})


def _key() -> str:
    return f"schedule-{secrets.token_hex(16)}"


HANDLERS = [list_schedules, add_schedule, show_schedule, pause_schedule, resume_schedule, remove_schedule]
ROUTER = Router("/api/schedules", route_handlers=HANDLERS)
