"""Pull requests on GitHub, by gidgethub: no I/O of its own, 70 kB, and half a MiB in memory beside httpx2 (githubkit
brings 74 MB with pydantic)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from protocol.repo import PullRequestWish
from protocol.task import PullRequest
from services import log
from services.github import GithubConfig
from services.repos.address import Address
from services.repos.hosts import Branch, Offered, description

if TYPE_CHECKING:
    from gidgethub.abc import GitHubAPI
    from httpx2 import AsyncClient

CALL_SECONDS = 10.0
AGAIN_SECONDS = 0.5
NEXT_TIME = "The task's next turn tries again."
TRIES = 3
"""Of a call that may be made again, while GitHub stumbles."""
PATH = re.compile(r"/*([^/]+)/([^/]+?)(?:\.git)?/*")
SCP_PATH = re.compile(r"[^@/]+@[^:/]+:(.+)")
PULLS = "/repos/{owner}/{name}/pulls"
READY = "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { clientMutationId } }"
# REST knows no such call: https://docs.github.com/en/graphql/reference/mutations#markpullrequestreadyforreview


class Pull(Struct, frozen=True):
    """What we read of a pull request."""

    number: int
    html_url: str
    node_id: str = ""
    state: str = "open"
    draft: bool = False
    merged_at: str | None = None
    title: str = ""
    body: str | None = None


class NotOffered(Exception):
    """There is no pull request, or an old one; the message says why, for a person."""


class Github:
    """Implements `Host`."""

    def __init__(self, config: GithubConfig, public_url: str) -> None:
        """`public_url` is where people reach this server; may be empty."""
        self._config = config
        self._public_url = public_url.rstrip("/")

    def has(self, address: Address) -> bool:
        return address.host == self._config.host and _owner_and_name(address) is not None

    async def offer(self, branch: Branch, wish: PullRequestWish, token: str) -> Offered:
        if not token:
            return _without(
                branch,
                f"Errand has no token for {self._config.host}: sign in with GitHub, or the owner gives one with "
                f"`errand host add {self._config.host}`.",
            )
        try:
            async with _api(token, self._config.api_url) as api:
                return await _Offer(api, branch, wish, self._link(branch), self._config).make()
        except NotOffered as reason:
            return _without(branch, str(reason))
        except Exception:  # whatever GitHub answers, the work is done and pushed
            log.get().exception("pull_request_failed", repository=branch.address.url, branch=branch.name)
            return _without(branch, "Errand failed at it; the log of repos says why.")

    def _link(self, branch: Branch) -> str:
        # An address of this machine leads nobody here.
        has_name = urlsplit(self._public_url).hostname not in (None, "localhost", "127.0.0.1", "::1")
        return f"{self._public_url}/#/task/{branch.task}" if has_name else ""


class _Offer:
    """One branch being offered."""

    def __init__(self, api: GitHubAPI, branch: Branch, wish: PullRequestWish, link: str, config: GithubConfig) -> None:
        self._api = api
        self._branch = branch
        self._wish = wish
        self._config = config
        self._body = description.body(wish, link)
        owner_and_name = _owner_and_name(branch.address)
        assert owner_and_name is not None, "`has` said so"
        self._names = {"owner": owner_and_name[0], "name": owner_and_name[1]}

    async def make(self) -> Offered:
        found = await self._find()
        if found is None:
            return await self._open()
        return await self._update(found) if found.state == "open" else _closed(found, self._branch)

    async def _find(self) -> Pull | None:
        """The branch's pull request: the open one; else one that was closed, but not one that was merged: work that
        came later is offered anew."""
        names = {**self._names, "head": f"{self._names['owner']}:{self._branch.name}", "state": "all"}
        answer = await _ask(lambda: self._api.getitem(PULLS + "{?head,state}", names), tries=TRIES)
        pulls = sorted(msgspec.convert(answer, list[Pull]), key=lambda pull: pull.number)
        still_open = [pull for pull in pulls if pull.state == "open"]
        last = (still_open or pulls)[-1] if pulls else None
        return None if last and last.merged_at else last

    async def _open(self) -> Offered:
        wanted: dict[str, Any] = {
            "title": description.title(self._wish),
            "head": self._branch.name,
            "base": self._branch.base,
            "body": self._body,
            "draft": self._wish.unfinished,
        }
        try:
            return _opened(await self._post(wanted))
        except NotOffered as reason:
            if "already exists" in str(reason) and (found := await self._find()):
                # Opened by ourselves, before a crash or at this same moment.
                return await self._update(found)
            if wanted["draft"] and "raft" in str(reason):
                return _opened(await self._post({**wanted, "draft": False}))  # not every plan has drafts
            raise

    async def _post(self, wanted: dict[str, Any]) -> Pull:
        # Not repeated: whether a call that broke was done is found out by the next turn.
        return msgspec.convert(await _ask(lambda: self._api.post(PULLS, self._names, data=wanted)), Pull)

    async def _update(self, found: Pull) -> Offered:
        title = description.newer_title(found.title, self._wish)
        body = description.newer_body(found.body or "", self._body)
        notices: tuple[str, ...] = ()
        try:
            if (title, body) != (found.title, found.body or ""):
                names = {**self._names, "number": str(found.number)}
                changed = {"title": title, "body": body}
                await _ask(lambda: self._api.patch(PULLS + "/{number}", names, data=changed), tries=TRIES)
            if found.draft and title != found.title:
                await self._make_ready(found)
        except NotOffered as reason:
            notices = (f"The pull request {found.html_url} has the new commits; its text is not up to date: {reason}",)
        draft = found.draft and (title == found.title or bool(notices))
        return Offered(PullRequest(number=found.number, url=found.html_url, draft=draft), notices)

    async def _make_ready(self, found: Pull) -> None:
        """It was opened as a draft because the work was unfinished, and now it is done."""
        api_url = self._config.api_url
        endpoint = f"{api_url.removesuffix('/v3')}/graphql"
        await _ask(lambda: self._api.graphql(READY, endpoint=endpoint, id=found.node_id))


def _opened(pull: Pull) -> Offered:
    return Offered(PullRequest(number=pull.number, url=pull.html_url, draft=pull.draft))


def _closed(pull: Pull, branch: Branch) -> Offered:
    shown = PullRequest(number=pull.number, url=pull.html_url, draft=pull.draft)
    notice = f"The pull request {pull.html_url} is closed; {branch.name} has the new work. Reopen it there if you want."
    return Offered(shown, (notice,))


def _without(branch: Branch, reason: str) -> Offered:
    return Offered(None, (f"{branch.name} is pushed, but there is no pull request for it: {reason}",))


def _owner_and_name(address: Address) -> tuple[str, str] | None:
    scp = SCP_PATH.fullmatch(address.url) if "://" not in address.url else None
    path = f"/{scp[1]}" if scp else urlsplit(address.url).path
    match = PATH.fullmatch(unquote(path))
    return (match[1], match[2]) if match else None


@asynccontextmanager
async def _api(token: str, url: str) -> AsyncIterator[GitHubAPI]:
    # Half a second of imports and 4 MiB that an installation without GitHub does not need.
    import httpx2
    from gidgethub.httpx import GitHubAPI

    client: AsyncClient
    async with httpx2.AsyncClient(timeout=CALL_SECONDS) as client:
        yield GitHubAPI(client, "errand", oauth_token=token, base_url=url)


async def _ask(call: Callable[[], Awaitable[Any]], *, tries: int = 1) -> Any:
    """The call's answer; NotOffered with a sentence for a person. While GitHub stumbles, a call that may be made again
    is."""
    import anyio
    import gidgethub
    import httpx2

    for number in range(1, tries):
        try:
            return await _explained(call)
        except (gidgethub.GitHubBroken, httpx2.TransportError):
            await anyio.sleep(AGAIN_SECONDS * number)
    try:
        return await _explained(call)
    except gidgethub.GitHubBroken as error:
        raise NotOffered(f"GitHub answers {int(error.status_code)}. {NEXT_TIME}") from None
    except httpx2.TransportError as error:
        raise NotOffered(f"GitHub cannot be reached right now ({type(error).__name__}). {NEXT_TIME}") from None


async def _explained(call: Callable[[], Awaitable[Any]]) -> Any:
    import gidgethub

    try:
        return await call()
    except gidgethub.GitHubBroken:
        raise
    except gidgethub.RateLimitExceeded as error:
        raise NotOffered(_limited(error.headers)) from None
    except gidgethub.HTTPException as error:
        raise NotOffered(_sentence(int(error.status_code), " ".join(str(error).split()), error.headers)) from None
    except gidgethub.GitHubException as error:
        raise NotOffered(f"GitHub says: {_words(str(error))}") from None


def _sentence(status: int, said: str, headers: Mapping[str, str]) -> str:
    match status:
        case 401:
            return "GitHub does not take the token any more: sign in with GitHub again, or renew it. " + NEXT_TIME
        case 403 | 429 if "rate limit" in said.lower() or "retry-after" in headers:
            return _limited(headers)
        case 403 if "archived" in said:
            return "the repository is archived, so that nobody can change it."
        case 403:
            return (
                f"the token may not open pull requests there; it needs the permission "
                f"“Pull requests: read and write” (an OAuth app the scope `repo`). GitHub says: {_words(said)}"
            )
        case 404:
            return "GitHub does not show the repository to this token: install the GitHub App on it."
        case 301 | 302 | 307 | 308:
            return "the repository was moved: give its new address to the next task."
        case 422 if "No commits between" in said:
            return "GitHub sees no new commit on it: the base branch has the work already."
        case _:
            return f"GitHub says: {_words(said)}"


def _limited(headers: Mapping[str, str]) -> str:
    wait = headers.get("retry-after", "")
    reset = headers.get("x-ratelimit-reset", "")
    at = datetime.now(UTC) + timedelta(seconds=int(wait)) if wait.isdigit() else None
    at = at or (datetime.fromtimestamp(int(reset), UTC) if reset.isdigit() else None)
    until = f" before {at:%H:%M} UTC" if at else ""
    return f"GitHub takes no more requests from this account{until}. {NEXT_TIME}"


def _words(said: str) -> str:
    return "".join(character for character in said if character.isprintable())[:300]
