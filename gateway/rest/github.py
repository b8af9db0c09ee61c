"""Signing in with GitHub, for browsers: each answer is a redirect or a page with a sentence."""

from __future__ import annotations

import secrets
from html import escape
from typing import Any

from litestar import Request, Response, Router, delete, get
from litestar.datastructures import Cookie
from msgspec import Struct

from gateway.errors import Problem
from gateway.github import START, GithubDoor
from gateway.rest.account import consumed
from gateway.ticket import LIFE
from gateway.users import Asker, Users
from protocol.user import ForgetGithub
from services import log
from services.bus import Refused, Unavailable

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Errand: sign in</title><link rel="stylesheet" href="/page.css">
<main><h1>Not signed in</h1><p>{reason}</p>
<p><a href="{start}">Start again</a> or <a href="/">go to Errand</a></p></main>
</html>
"""


class GithubSignIn(Struct, frozen=True):
    """Whether people can sign in with GitHub, and where a browser goes for it."""

    available: bool
    start: str = START


@get("/sign-in/github")
async def offered(github: GithubDoor) -> GithubSignIn:
    """Whether people can sign in with GitHub; needs no token."""
    return GithubSignIn(github.available)


@get("/sign-in/github/start")
async def start(github: GithubDoor, choose: bool = False) -> Response[Any]:
    """Send the browser to GitHub; with `choose` it lets the person choose between accounts."""
    try:
        begun = github.begin(choose=choose)
    except Problem as problem:
        return page(problem)
    return redirect(begun.location, _cookie(github, begun.cookie))


@get("/sign-in/github/callback")
async def callback(request: Request, github: GithubDoor) -> Response[Any]:
    """The browser is back: send it to our own page with a one-time code. There is no other place it could go."""
    given = request.query_params
    try:
        code = await github.finish(
            code=given.get("code", ""),
            state=given.get("state", ""),
            error=given.get("error", ""),
            cookie=request.cookies.get(github.cookie_name, ""),
            peer=request.client.host if request.client else "",
        )
    except Problem as problem:
        # GitHub's own word for it, such as `redirect_uri_mismatch`, is for who set the app up.
        log.get().info("github_sign_in_refused", reason=problem.error, github_says=given.get("error", "")[:100])
        return page(problem)
    except (Unavailable, Refused) as error:
        return page(Problem(503, f"{error} Start again in a moment."))
    return redirect(f"/#code={code}", _cookie(github, ""))


@delete("/users/{user:str}/github")
async def forget(asker: Asker, users: Users, user: str) -> None:
    """Drop a user's GitHub account and its tokens: one's own, or for the owner anybody's."""
    if user != asker.user and not asker.is_owner:
        raise Problem(403, "Only the owner forgets others' GitHub accounts.")
    if users.get(user) is None:
        raise Problem(404, "There is no such user.")
    consumed(await users.command(user, ForgetGithub(key=f"github-{secrets.token_hex(16)}")), 404)


def redirect(location: str, cookie: Cookie) -> Response[Any]:
    return Response(None, status_code=303, headers={"location": location}, cookies=[cookie])


def page(problem: Problem) -> Response[Any]:
    # Whose account may not come in may have another one.
    text = PAGE.format(reason=escape(problem.error), start=f"{START}?choose=1" if problem.status == 403 else START)
    return Response(text, status_code=problem.status, media_type="text/html")


def _cookie(github: GithubDoor, value: str) -> Cookie:
    """Lax: it has to come along when GitHub sends the browser back. An empty one takes it away."""
    return Cookie(
        key=github.cookie_name,
        value=value,
        path="/",
        max_age=int(LIFE.total_seconds()) if value else 0,
        httponly=True,
        samesite="lax",
        secure=github.is_secure,
    )


ROUTER = Router("/api", route_handlers=[offered, start, callback, forget])
