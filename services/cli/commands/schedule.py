from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from protocol.schedule import CatchUp, Schedule
from protocol.task import DEFAULT_QUEUE, PRIORITY_LIMIT
from services.cli.amounts import UNLIMITED, Amount
from services.cli.options import Place, client_command, key_option
from services.cli.times import Duration, local_zone


@click.group("schedule")
def command() -> None:
    """Have tasks submitted by the calendar: every night, every Monday at nine."""


def _add(place: Place, prompt: str, cron: str, zone: str, name: str, repo: str | None, **settings: Any) -> int:
    """Submit PROMPT whenever CRON says so.

    CRON has five fields: minute, hour, day of the month, month, day of the week. "0 9 * * 1-5" is nine on weekdays.
    """
    from services.cli import repository
    from services.cli.api import path, read
    from services.cli.failure import Failure
    from services.cli.given import given

    zone = zone or local_zone()
    if not zone:
        raise Failure("The time zone of this machine is not known: say it with `--zone Europe/Berlin`.")
    text = given(prompt)
    if not text.strip():
        raise Failure("The prompt is empty: say what to do.")
    body = {
        "name": name or text.strip().partition("\n")[0][:60],
        "cron": cron,
        "time_zone": zone,
        "catch_up": settings.pop("catch_up"),
        "key": settings.pop("key"),
        "task": {"prompt": text, "repository": repository.choose(repo, Path.cwd()), **_task(settings)},
    }
    _show(place, read(place.api.post(path("schedules"), body), Schedule))
    return 0


def _task(settings: dict[str, Any]) -> dict[str, Any]:
    """What was said of its tasks; the rest has the server's defaults."""
    budget = settings.pop("budget_usd")
    said = {name: value for name, value in settings.items() if value not in (None, "", ())}
    return said if budget is None else {**said, "budget": {"money_usd": None if budget == UNLIMITED else budget}}


def _ls(place: Place) -> int:
    """List your schedules, the next to be due first."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    content = place.api.get(path("schedules"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    found = read(content, dict[str, list[Schedule]])["schedules"]
    rows = [[one.id, one.name, one.cron, one.time_zone, _next(one), _last(one)] for one in found]
    print_table(("schedule", "name", "cron", "zone", "next", "last"), rows)
    return 0


def _whole_id(place: Place, given: str) -> str:
    """The id that `given` is, or is the beginning of. Raises Failure."""
    from services.cli.api import path, read
    from services.cli.failure import Failure
    from services.cli.tasks import the_one_of

    schedules = read(place.api.get(path("schedules")), dict[str, list[Schedule]])["schedules"]
    found = the_one_of(given, [each.id for each in schedules])
    if not found:
        raise Failure(f"There is no schedule {given!r}: `errand schedule ls` shows those you have.")
    return found


def _tell(place: Place, schedule: str, verb: str) -> int:
    from services.cli.api import path, read

    _show(place, read(place.api.post(path("schedules", _whole_id(place, schedule), verb), {}), Schedule))
    return 0


def _show_one(place: Place, schedule: str) -> int:
    """Show when it is due next and how its last task ended. SCHEDULE is its id in `errand schedule ls`, or its
    beginning."""
    from services.cli.api import path, read

    _show(place, read(place.api.get(path("schedules", _whole_id(place, schedule))), Schedule))
    return 0


def _pause(place: Place, schedule: str) -> int:
    """Submit nothing until it is resumed. Its open tasks go on."""
    return _tell(place, schedule, "pause")


def _resume(place: Place, schedule: str) -> int:
    """Go on with the next time from now. A schedule is paused by itself after three failures in a row."""
    return _tell(place, schedule, "resume")


def _rm(place: Place, schedule: str) -> int:
    """Submit nothing more by it. Its tasks stay."""
    from services.cli.api import path

    place.api.delete(path("schedules", _whole_id(place, schedule)), {})
    click.echo('{"removed": true}' if place.as_json else "Removed.")
    return 0


def _show(place: Place, schedule: Schedule) -> None:
    import msgspec

    from services.cli.text import clean, one_line, safe_json

    if place.as_json:
        click.echo(safe_json(msgspec.json.encode(schedule).decode()))
        return
    fields = (
        ("schedule", schedule.id),
        ("name", one_line(schedule.name)),
        ("cron", f"{schedule.cron} in {schedule.time_zone}, catches up: {schedule.catch_up}"),
        ("next", _next(schedule)),
        ("last", _last(schedule)),
        ("open", " ".join(run.task for run in schedule.runs)),
        ("repository", one_line(schedule.submission.repository)),
    )
    for label, value in fields:
        if value:
            click.echo(f"{label:<10} {value}")
    click.echo()
    click.echo(clean(schedule.submission.prompt))


def _next(schedule: Schedule) -> str:
    return _moment(schedule.next_at) if schedule.next_at else f"paused: {schedule.paused}"


def _last(schedule: Schedule) -> str:
    return f"{schedule.last_task} {schedule.last_outcome}" if schedule.last_outcome else ""


def _moment(at: datetime) -> str:
    """In the zone of who reads it."""
    return f"{at.astimezone():%Y-%m-%d %H:%M %Z}"


for _option in reversed(
    (
        click.argument("prompt"),
        click.option("--cron", required=True, help='"0 9 * * 1-5": minute, hour, day, month, day of the week.'),
        click.option("--zone", default="", help="The time zone, Europe/Berlin say; otherwise this machine's."),
        click.option("--name", default="", help="Otherwise the prompt's first line."),
        click.option("--repo", metavar="URL|PATH", help="The git repository; otherwise the one you stand in."),
        click.option(
            "--catch-up",
            type=click.Choice([one.value for one in CatchUp]),
            default=CatchUp.ONCE.value,
            show_default=True,
            help="What fell due while the server was down: nothing, one task for all, or one for each (the last ten).",
        ),
        click.option("--base", default="", help="The branch, tag or commit to start from."),
        click.option("--model", default="", help="The model's name."),
        click.option("--budget-usd", type=Amount(float), help='What a turn may cost, or "unlimited".'),
        click.option("--queue", default=DEFAULT_QUEUE, show_default=True, help="Whose runners its tasks wait for."),
        click.option("--label", "labels", multiple=True, help="What their runner must have."),
        click.option("--priority", type=click.IntRange(-PRIORITY_LIMIT, PRIORITY_LIMIT), default=0),
        click.option("--queue-limit", "queue_seconds", type=Duration(), help="Not begun after so long, a task fails."),
        click.option("--deadline", "turn_seconds", type=Duration(), help="A turn is ended after so long."),
        click.option("--pull-request/--no-pull-request", default=True, help="Open one for each branch; the default."),
        key_option("schedule"),
    )
):
    _add = _option(_add)
command.add_command(client_command("add")(_add))
command.add_command(client_command("ls")(_ls))
for _name, _function in (("show", _show_one), ("pause", _pause), ("resume", _resume), ("rm", _rm)):
    command.add_command(client_command(_name)(click.argument("schedule")(_function)))
