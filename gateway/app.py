"""The Litestar application: routes, what they need, and how what goes wrong is said."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, WebSocket, websocket
from litestar.di import Provide
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import OpenAPIConfig

from gateway import pages
from gateway.config import Config
from gateway.errors import Problem, of_refusal
from gateway.github import GithubDoor
from gateway.live.phone import SIGNED_OUT
from gateway.live.sockets import Sockets
from gateway.live.wire import Gone, Wire
from gateway.notices import Notices
from gateway.push.web_push import WebPush
from gateway.rest import (
    account,
    bulk,
    dead,
    github,
    identify,
    installation,
    push,
    queues,
    schedules,
    settings,
    setup_secrets,
    tasks,
)
from gateway.sign_in import Door
from gateway.tasks import Tasks
from gateway.users import Users
from services import log
from services.actor import Actor
from services.bus import Bus, Refused, Unavailable

UNREADABLE = (UnicodeDecodeError, RecursionError, OverflowError)
"""What msgspec says of text that is no UTF-8, of what is nested too deep and of numbers beyond 64 bits, which Litestar
takes for failures of ours."""


@websocket("/api/live")
async def live(socket: WebSocket, sockets: Sockets, config: Config) -> None:
    """The live socket; its frames are in `protocol/live.py`."""
    if _is_foreign(socket, config):
        await socket.close(SIGNED_OUT, "This page is not of this server.")
        return
    await socket.accept()
    socket.scope["headers"] = []  # they would stay for as long as the phone
    try:
        await sockets.attend(Wire(socket))
    except Gone:
        return
    except Exception:
        # Litestar would close without a word in the log.
        log.get().exception("socket_failed")
        with suppress(Gone):
            await Wire(socket).close(1011, "The server failed; its log says why.")


def _is_foreign(socket: WebSocket, config: Config) -> bool:
    """Whether another site's page opens this socket; a program sends no origin."""
    headers = dict(socket.scope["headers"])
    origin = headers.get(b"origin")
    host = headers.get(b"host", b"").decode("latin-1")
    return origin is not None and not config.is_own_origin(origin.decode("latin-1"), host)


def make(
    config: Config,
    *,
    actor: Actor,
    bus: Bus,
    users: Users,
    door: Door,
    github_door: GithubDoor,
    tasks_: Tasks,
    notices: Notices,
    pages_: pages.Pages,
    sockets: Sockets,
    web_push: WebPush,
    openapi: OpenAPIConfig | None = None,
) -> Litestar:
    """The application over its parts. `openapi` is for `gateway.contract`: nothing of it is served."""
    parts = {
        "actor": actor,
        "bus": bus,
        "config": config,
        "door": door,
        "github": github_door,
        "notices": notices,
        "pages": pages_,
        "sockets": sockets,
        "tasks": tasks_,
        "users": users,
        "web_push": web_push,
    }
    dependencies: dict[str, Any] = {name: Provide(_always(part), sync_to_thread=False) for name, part in parts.items()}
    dependencies |= {"asker": Provide(identify.asker), "owner": Provide(identify.owner)}
    return Litestar(
        route_handlers=[
            *(live, pages.ROUTER),
            *(
                tasks.ROUTER,
                bulk.ROUTER,
                queues.ROUTER,
                account.ROUTER,
                github.ROUTER,
                dead.ROUTER,
                installation.ROUTER,
                push.ROUTER,
                schedules.ROUTER,
                settings.ROUTER,
                setup_secrets.ROUTER,
            ),
        ],
        dependencies=dependencies,
        exception_handlers={
            Problem: say_problem,
            Refused: say_refusal,
            Unavailable: say_unavailable,
            HTTPException: say_http,
            **dict.fromkeys(UNREADABLE, say_unreadable),
            Exception: say_failure,
        },
        response_headers={"cache-control": "no-store"},
        request_max_body_size=config.body_limit_bytes,
        openapi_config=openapi,
        logging_config=None,
    )


def _always(part: Any) -> Any:
    return lambda: part


# What goes wrong: always `{"error": sentence, "field"?: name}`.


def say(problem: Problem) -> Response[dict[str, Any]]:
    headers = {"cache-control": "no-store"}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(problem.body(), status_code=problem.status, headers=headers, media_type="application/json")


def say_problem(_: Request, problem: Problem) -> Response:
    return say(problem)


def say_refusal(_: Request, refused: Refused) -> Response:
    return say(of_refusal(refused))


def say_unavailable(_: Request, error: Unavailable) -> Response:
    return say(Problem(503, f"{error} Try again in a moment."))


def say_http(_: Request, error: HTTPException) -> Response:
    """What Litestar refused: no such route, a body that does not fit."""
    if isinstance(error, ValidationException):
        return say(_wrong_field(error))
    if isinstance(error.__cause__, msgspec.MsgspecError):
        return say(Problem(400, f"The request's body cannot be read: {error.__cause__}."))
    sentences = {
        404: "There is nothing at this address.",
        405: "This address does not take that method: at its end a name or an id may be missing.",
        413: "The request is too large: shorten it.",
    }
    return say(Problem(error.status_code, sentences.get(error.status_code, f"{error.detail}.")))


def say_unreadable(request: Request, error: Exception) -> Response:
    log.get().warning("request_unreadable", method=request.method, path=request.url.path, exc_info=error)
    return say(Problem(400, f"The request cannot be read: {error}."))


def say_failure(request: Request, error: Exception) -> Response:
    log.get().exception("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return say(Problem(500, "The server failed; its log says why."))


def _wrong_field(error: ValidationException) -> Problem:
    """The first field that does not fit."""
    first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    field, message = str(first.get("key", "")), str(first.get("message", error.detail))
    if field == "data":  # Litestar's name for the whole body
        field = ""
    if message == "'data'":
        message = "The request's body is missing: it is a JSON object"
    missing = re.search(r"missing required field `(\w+)`", message)
    if missing:
        field, message = missing[1], "It is missing"
    return Problem(400, f"{field}: {message}." if field else f"{message}.", field)
