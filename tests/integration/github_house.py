"""A GitHub over real HTTP, stricter than the real one: OAuth that insists on PKCE, codes and refresh tokens that work
once, git with users' tokens, and pull requests between branches that are really there.

The emulators that are kept (npm's `emulate` 0.12, `@simulacrum/github-api-simulator` 0.8) have no PKCE, no refresh
tokens, and no git behind their repositories. What the first one has is used in `test_github_emulated`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from services.github import GithubConfig
from tests.integration.repos_house import GitServer, _password, git, make_origin, need_git_over_http

CLIENT_ID = "Iv23errandtests"
CLIENT_SECRET = "client-secret-that-must-not-be-seen"
HOUR = 3600


@dataclass
class Account:
    id: int
    login: str


@dataclass
class Code:
    account: Account
    redirect_uri: str
    challenge: str
    used: bool = False


@dataclass
class Grant:
    """A pair of tokens."""

    account: Account
    access: str
    refresh: str
    ends_at: float
    dead: bool = False


@dataclass
class Repository:
    path: Path
    private: bool = False
    readers: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)
    archived: bool = False
    pull_requests_allowed: bool = True
    drafts_allowed: bool = True


@dataclass
class Answer:
    """A fault for the next request whose path has `path` in it."""

    path: str
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


class GithubServer(GitServer):
    """Accounts, their tokens, repositories and pull requests. `browser` is who is signed in there in the browser."""

    def __init__(self, root: Path) -> None:
        self.accounts: dict[str, Account] = {}
        self.browser = ""
        self.redirect_uris: set[str] = set()
        self.codes: dict[str, Code] = {}
        self.grants: list[Grant] = []
        self.lifetime_seconds: float = 8 * HOUR
        self.tokens_end = True
        self.refreshes = 0
        self.repositories: dict[str, Repository] = {}
        self.pulls: dict[str, list[dict[str, Any]]] = {}
        self.faults: list[Answer] = []
        self.calls: list[str] = []
        self.git_logins: list[str] = []
        """Who fetched and pushed, request by request."""
        self.on_refresh: Callable[[], None] = lambda: None
        self.on_opened: Callable[[], None] = lambda: None
        """Called between what was done here and the answer that says so."""
        self._root = root
        super().__init__(root)

    @property
    def base(self) -> str:
        return f"http://{self.host}"

    # What a test sets up

    def account(self, login: str, number: int) -> Account:
        self.accounts[login] = Account(number, login)
        return self.accounts[login]

    def repository(self, name: str, **rights: Any) -> str:
        """Make `owner/name` with one commit; return its URL."""
        path = self._root / f"{name}.git"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.repositories[name] = Repository(make_origin(path), **rights)
        self.pulls[name] = []
        return f"{self.base}/{name}"

    def grant(self, account: Account) -> Grant:
        """Tokens, as if the account had signed in."""
        ends_at = time.time() + self.lifetime_seconds
        refresh = f"ghr_{secrets.token_hex(20)}" if self.tokens_end else ""
        grant = Grant(account, f"ghu_{secrets.token_hex(20)}", refresh, ends_at)
        self.grants.append(grant)
        return grant

    def secrets(self) -> list[str]:
        """All that must be seen nowhere else."""
        return [CLIENT_SECRET, *(token for g in self.grants for token in (g.access, g.refresh) if token)]

    # Routing

    def _answer(self, request: BaseHTTPRequestHandler, root: Path) -> None:
        url = urlsplit(request.path)
        self.calls.append(f"{request.command} {url.path}")
        if fault := next((fault for fault in self.faults if fault.path in request.path), None):
            self.faults.remove(fault)
            self._body(request)
            return self._json(request, fault.status, fault.body, fault.headers)
        if url.path.startswith(("/login/", "/api/")):
            return self._web(request, url.path, {key: values[-1] for key, values in parse_qs(url.query).items()})
        return self._git(request, root)

    def _git(self, request: BaseHTTPRequestHandler, root: Path) -> None:
        owner, name, *rest = request.path.strip("/").split("/")
        name = name.removesuffix(".git")
        repository = self.repositories.get(f"{owner}/{name}")
        grant = self._grant_of(_password(request.headers.get("Authorization", "")))
        pushes = "git-receive-pack" in request.path
        login = grant.account.login if grant else ""
        if repository is None or (repository.private and not self._reads(repository, login)) or (pushes and not grant):
            self._body(request)
            return self._plain(request, 404 if grant else 401, {"WWW-Authenticate": 'Basic realm="GitHub"'})
        if pushes and (login not in repository.writers or repository.archived):
            self._body(request)
            words = "This repository was archived so it is read-only." if repository.archived else ""
            words = words or f"Permission to {owner}/{name}.git denied to {login}."
            return self._plain(request, 403, {"Content-Type": "text/plain"}, words.encode())
        self.git_logins.append(f"{'push' if pushes else 'fetch'} {login}")
        request.path = f"/{owner}/{name}.git/{'/'.join(rest)}"
        return super()._answer(request, root)

    @staticmethod
    def _reads(repository: Repository, login: str) -> bool:
        return login in repository.readers | repository.writers

    def _web(self, request: BaseHTTPRequestHandler, path: str, query: Mapping[str, str]) -> None:
        body = self._body(request)
        try:
            if path == "/login/oauth/authorize":
                return self._plain(request, 302, {"Location": self._authorize(query)})
            if path == "/login/oauth/access_token":
                assert request.headers["Accept"] == "application/json"
                form = {key: values[-1] for key, values in parse_qs(body.decode()).items()}
                return self._json(request, 200, self._token(form))
            return self._json(request, *self._api(request, path.removeprefix("/api"), query, body))
        except Refusal as refusal:
            return self._json(request, refusal.status, refusal.body)

    def _json(
        self, request: BaseHTTPRequestHandler, status: int, body: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        shown = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        self._plain(request, status, shown, json.dumps(body).encode())

    # OAuth

    def _authorize(self, query: Mapping[str, str]) -> str:
        if query.get("client_id") != CLIENT_ID or query.get("redirect_uri") not in self.redirect_uris:
            raise Refusal(404, {"message": "The redirect_uri is not associated with this application."})
        if query.get("code_challenge_method") != "S256" or not re.fullmatch(
            r"[\w-]{43}", query.get("code_challenge", "")
        ):
            raise Refusal(400, {"message": "PKCE is required here."})
        if not query.get("state"):
            raise Refusal(400, {"message": "state is required here."})
        if not self.browser:
            return f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': query['state']})}"
        code = secrets.token_hex(10)
        self.codes[code] = Code(self.accounts[self.browser], query["redirect_uri"], query.get("code_challenge", ""))
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def _token(self, form: Mapping[str, str]) -> dict[str, Any]:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _oauth_error("incorrect_client_credentials", "The client_id and/or client_secret are incorrect.")
        if form.get("grant_type") == "refresh_token":
            return self._refresh(form.get("refresh_token", ""))
        code = self.codes.get(form.get("code", ""))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if code is None or code.used or code.challenge != challenge.decode().rstrip("="):
            return _oauth_error("bad_verification_code", "The code passed is incorrect or expired.")
        code.used = True
        if form.get("redirect_uri") != code.redirect_uri:
            return _oauth_error("redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL.")
        return self._pair(self.grant(code.account))

    def _refresh(self, token: str) -> dict[str, Any]:
        self.refreshes += 1
        grant = next((grant for grant in self.grants if grant.refresh == token and not grant.dead), None)
        if not token or grant is None:
            return _oauth_error("bad_refresh_token", "The refresh token passed is incorrect or expired.")
        grant.dead = True
        newer = self.grant(grant.account)
        self.on_refresh()
        return self._pair(newer)

    def _pair(self, grant: Grant) -> dict[str, Any]:
        pair: dict[str, Any] = {"access_token": grant.access, "token_type": "bearer", "scope": ""}
        if grant.refresh:
            pair |= {"expires_in": int(self.lifetime_seconds), "refresh_token": grant.refresh}
        return pair

    def _grant_of(self, token: str) -> Grant | None:
        found = next((grant for grant in self.grants if grant.access == token), None)
        return found if found and not found.dead and found.ends_at > time.time() else None

    # The API

    def _api(
        self, request: BaseHTTPRequestHandler, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, Any]:
        if path == f"/v3/applications/{CLIENT_ID}/token":
            known = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            if request.headers.get("Authorization") != f"Basic {known}":
                raise Refusal(401, {"message": "Bad credentials"})
            grant = self._grant_of(json.loads(body)["access_token"])
            if grant is None:
                raise Refusal(404, {"message": "Not Found"})
            grant.dead = grant.dead or request.command == "DELETE"
            return 204, None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        grant = self._grant_of(token)
        if scheme.lower() not in ("bearer", "token") or grant is None:
            raise Refusal(401, {"message": "Bad credentials"})
        if path == "/v3/user":
            return 200, {"id": grant.account.id, "login": grant.account.login}
        if path == "/graphql":
            return 200, self._make_ready(json.loads(body))
        match = re.fullmatch(r"/v3/repos/([^/]+/[^/]+)/pulls(?:/(\d+))?", path)
        if match is None:
            raise Refusal(404, {"message": "Not Found"})
        return self._pulls(request.command, match[1], int(match[2] or 0), query, body, grant.account.login)

    def _pulls(
        self, method: str, name: str, number: int, query: Mapping[str, str], body: bytes, login: str
    ) -> tuple[int, Any]:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not self._reads(repository, login)):
            raise Refusal(404, {"message": "Not Found"})
        pulls = self.pulls[name]
        if method == "GET":
            wanted = [pull for pull in pulls if query.get("state") in ("all", pull["state"])]
            return 200, [pull for pull in wanted if pull["head"]["label"] == query["head"]]
        if repository.archived:
            raise Refusal(403, {"message": "Repository was archived so is read-only."})
        if not repository.pull_requests_allowed:
            raise Refusal(403, {"message": "Resource not accessible by integration"})
        said = json.loads(body)
        if method == "PATCH":
            pull = next(pull for pull in pulls if pull["number"] == number)
            pull |= {key: said[key] for key in ("title", "body", "state") if key in said}
            return 200, pull
        return 201, self._open(name, repository, said, login)

    def _open(self, name: str, repository: Repository, said: Mapping[str, Any], login: str) -> dict[str, Any]:
        label = f"{name.partition('/')[0]}:{said['head']}"
        if any(pull["state"] == "open" and pull["head"]["label"] == label for pull in self.pulls[name]):
            raise _invalid(f"A pull request already exists for {label}.")
        branches = git(repository.path, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        for side in ("head", "base"):
            if said[side] not in branches:
                raise Refusal(422, {"message": "Validation Failed", "errors": [{"field": side, "code": "invalid"}]})
        if git(repository.path, "rev-list", "--count", f"{said['base']}..{said['head']}") == "0":
            raise _invalid(f"No commits between {said['base']} and {said['head']}")
        if said.get("draft") and not repository.drafts_allowed:
            raise _invalid("Draft pull requests are not supported in this repository.")
        number = len(self.pulls[name]) + 1
        pull = {
            "number": number,
            "node_id": f"PR_{name}_{number}",
            "html_url": f"{self.base}/{name}/pull/{number}",
            "state": "open",
            "merged_at": None,
            "draft": bool(said.get("draft")),
            "title": said["title"],
            "body": said["body"],
            "user": {"login": login},
            "head": {"label": label, "ref": said["head"]},
            "base": {"ref": said["base"]},
        }
        self.pulls[name].append(pull)
        self.on_opened()
        return pull

    def _make_ready(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        assert "markPullRequestReadyForReview" in asked["query"]
        for pull in (pull for pulls in self.pulls.values() for pull in pulls):
            if pull["node_id"] == asked["variables"]["id"]:
                pull["draft"] = False
                return {"data": {"markPullRequestReadyForReview": {"clientMutationId": None}}}
        return {"data": None, "errors": [{"message": "Could not resolve to a node with that id."}]}


def _oauth_error(error: str, description: str) -> dict[str, Any]:
    return {"error": error, "error_description": description, "error_uri": "https://docs.github.com/x"}


def _invalid(message: str) -> Refusal:
    error = {"resource": "PullRequest", "code": "custom", "message": message}
    return Refusal(422, {"message": "Validation Failed", "errors": [error]})


@contextmanager
def github_server(root: Path) -> Iterator[GithubServer]:
    need_git_over_http()
    root.mkdir(parents=True, exist_ok=True)
    server = GithubServer(root)
    try:
        yield server
    finally:
        server.stop()


def secret_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "github-client-secret"
    path.write_text(CLIENT_SECRET + "\n")
    return path


def settings(server: GithubServer, folder: Path, **more: str) -> dict[str, str]:
    """What an operator sets."""
    return {
        "ERRAND_GITHUB_CLIENT_ID": CLIENT_ID,
        "ERRAND_GITHUB_CLIENT_SECRET_FILE": str(secret_file(folder)),
        "ERRAND_GITHUB_URL": server.base,
        **more,
    }


def config(server: GithubServer, folder: Path) -> GithubConfig:
    return GithubConfig(
        github_client_id=CLIENT_ID, github_client_secret_file=str(secret_file(folder)), github_url=server.base
    )
