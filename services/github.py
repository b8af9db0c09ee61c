"""GitHub as this installation knows it: where it is, the app that signs people in, and OAuth with it.

The gateway changes a code for tokens, the publisher changes tokens for newer ones; nobody else speaks OAuth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from protocol.repo import normal_host
from services.config import WrongSetting, from_environment

if TYPE_CHECKING:
    import httpx2

PUBLIC_URL = "https://github.com"
PUBLIC_API_URL = "https://api.github.com"
TIMEOUT_SECONDS = 10.0
"""For one answer of GitHub's."""
ACCEPT = {"Accept": "application/json"}

# Of authlib its client without I/O: with httpx2 around it, it would import OAuth 1 and OpenID, 8 MiB. Both are imported
# where they are used: an installation at rest signs nobody in.

AN_ADDRESS = "an address that begins with https:// and has no name before @, no ? and no #"
URL = r"https?://[^/?#\s@]+(/[^?#\s]*)?"


class GithubConfig(Struct, frozen=True, kw_only=True):
    """Signing in with GitHub, and GitHub's place. Gateway and repos both need these settings."""

    github_client_id: str = ""
    """Of the GitHub App or OAuth app that people sign in with; empty: nobody can."""
    github_client_secret_file: str = ""
    """File with that app's client secret."""
    github_url: Annotated[str, Meta(pattern=f"^{URL}$", description=AN_ADDRESS)] = PUBLIC_URL
    """Where people and git find GitHub, such as `https://github.example.org`."""
    github_api_url: Annotated[str, Meta(pattern=f"^({URL})?$", description=AN_ADDRESS, examples=[PUBLIC_API_URL])] = ""
    """Where its REST API is; unset: `https://api.github.com`, and `<github_url>/api/v3` of an Enterprise server."""
    github_users: str = ""
    """Logins that may sign in, separated by commas."""
    github_owner: str = ""
    """The login that signs in as the owner."""
    github_scopes: str = "repo"
    """What an OAuth app asks people for. A GitHub App has its permissions instead and ignores it."""

    @property
    def signs_in(self) -> bool:
        return bool(self.github_client_id)

    @property
    def is_enterprise(self) -> bool:
        """People sign in with a GitHub of their own, which need not be on the public internet."""
        return self.signs_in and self.url != PUBLIC_URL

    @property
    def url(self) -> str:
        return self.github_url.rstrip("/")

    @property
    def api_url(self) -> str:
        if self.github_api_url:
            return self.github_api_url.rstrip("/")
        return PUBLIC_API_URL if self.url == PUBLIC_URL else f"{self.url}/api/v3"

    @property
    def host(self) -> str:
        """As a repository's address has it, see `normal_host`."""
        parts = urlsplit(self.github_url.lower())
        plain_http = parts.scheme == "http" and parts.port is None
        return f"{parts.netloc}:80" if plain_http else normal_host(parts.netloc)

    @property
    def logins(self) -> frozenset[str]:
        """Who may sign in, in small letters: GitHub's logins know no case."""
        listed = {login.strip().casefold() for login in self.github_users.split(",")}
        return frozenset(listed | {self.owner}) - {""}

    @property
    def owner(self) -> str:
        return self.github_owner.strip().casefold()

    def client_secret(self) -> str:
        """Read at each use, so that it can be changed while we run. Raises GithubAway without one."""
        path = self.github_client_secret_file
        if not path:
            raise GithubAway("ERRAND_GITHUB_CLIENT_SECRET_FILE is not set: it goes with ERRAND_GITHUB_CLIENT_ID.")
        try:
            secret = Path(path).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise GithubAway(f"ERRAND_GITHUB_CLIENT_SECRET_FILE: {path} cannot be read.") from None
        if not secret:
            raise GithubAway(f"ERRAND_GITHUB_CLIENT_SECRET_FILE: {path} is empty.")
        return secret


def github_settings(environment: Mapping[str, str]) -> GithubConfig:
    """Read and check the settings. Raises WrongSetting."""
    config = from_environment(GithubConfig, environment)
    try:
        normal_host(urlsplit(config.github_url).netloc)
        _check_way("ERRAND_GITHUB_URL", config.url)
        _check_way("ERRAND_GITHUB_API_URL", config.api_url)
        if config.signs_in:
            config.client_secret()
    except ValueError as error:
        raise WrongSetting(f"ERRAND_GITHUB_URL: {error}") from None
    except GithubAway as error:
        raise WrongSetting(str(error)) from None
    return config


def _check_way(setting: str, url: str) -> None:
    """Tokens travel there."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise WrongSetting(f"{setting}: {url} begins with http, and tokens would travel in the clear: use https.")


class Tokens(Struct, frozen=True, omit_defaults=True):
    """What an account gave us. Travels in an envelope only."""

    access: str
    refresh: str = ""
    """Empty for an OAuth app: its access tokens do not end."""
    access_ends_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Tokens(access_ends_at={self.access_ends_at})"  # neither is in a log line or a traceback


class Identity(Struct, frozen=True, rename={"account": "id"}):
    """Who an account is, as `GET /user` says it."""

    account: int
    login: str


_decode_identity = msgspec.json.Decoder(Identity).decode


class GithubRefused(Exception):
    """GitHub refuses a code or a token; the message says why, for a person."""


class GithubAway(Exception):
    """GitHub cannot be asked, did not answer, or not what it should; another try may help."""


def bound_to(host: str, user: str) -> str:
    """What the envelope of a user's tokens is bound to: no other user's log can hold it. No host has a space in it."""
    return f"{host} {user}"


class GithubApp:
    """The app, speaking OAuth for one user at a time."""

    def __init__(self, config: GithubConfig) -> None:
        self._config = config

    def authorization_url(self, *, redirect_uri: str, state: str, verifier: str, choose: bool = False) -> str:
        """Where a browser is sent to, with PKCE (RFC 7636, S256); with `choose` GitHub asks which account."""
        more = {"prompt": "select_account"} if choose else {}
        from authlib.oauth2.client import OAuth2Client

        client = OAuth2Client(None, self._config.github_client_id, code_challenge_method="S256")
        url, _ = client.create_authorization_url(
            f"{self._config.url}/login/oauth/authorize",
            state=state,
            code_verifier=verifier,
            redirect_uri=redirect_uri,
            scope=self._config.github_scopes,
            **more,
        )
        return url

    async def exchange(self, code: str, *, redirect_uri: str, verifier: str) -> Tokens:
        """The tokens for a one-time code. Raises GithubRefused and GithubAway."""
        return await self._ask_for_tokens(
            grant_type="authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier
        )

    async def refresh(self, tokens: Tokens) -> Tokens:
        """Newer tokens; the old ones, both of them, are dead then. Raises GithubRefused and GithubAway."""
        return await self._ask_for_tokens(grant_type="refresh_token", refresh_token=tokens.refresh)

    async def _ask_for_tokens(self, **form: str) -> Tokens:
        """RFC 6749, sections 4.1.3 and 6; GitHub answers 200 also when it refuses."""
        from authlib.oauth2 import OAuth2Error
        from authlib.oauth2.client import OAuth2Client

        client_id, client_secret = self._credentials()
        form |= {"client_id": client_id, "client_secret": client_secret}
        async with self._asking() as http:
            answer = await http.post(f"{self._config.url}/login/oauth/access_token", data=form, headers=ACCEPT)
            try:
                return _tokens(OAuth2Client(None).parse_response_token(answer))
            except OAuth2Error as error:
                raise GithubRefused(_reason(error.error, error.description)) from None

    async def identify(self, tokens: Tokens) -> Identity:
        """Whose tokens these are. Raises GithubRefused and GithubAway."""
        async with self._asking() as http:
            answer = await http.get(
                f"{self._config.api_url}/user",
                headers={**ACCEPT, "Authorization": f"Bearer {tokens.access}"},
            )
            if answer.status_code != 200:
                raise GithubAway(f"GitHub did not say whose account this is (it answers {answer.status_code}).")
            return _decode_identity(answer.content)

    async def revoke(self, tokens: Tokens) -> None:
        """Let an access token die at GitHub. May fail: it is short-lived, and nobody has it."""
        with suppress(GithubAway, GithubRefused):
            async with self._asking() as http:
                body = {"access_token": tokens.access}
                await http.request("DELETE", self._token_address, auth=self._credentials(), headers=ACCEPT, json=body)

    async def check(self) -> str:
        """What is wrong with the client id, the secret or the way to GitHub; empty when nothing is.

        GitHub is asked about a token that nobody has: who asks must prove to be the app, and hears that there is none.
        """
        try:
            async with self._asking() as http:
                body = {"access_token": "none"}
                answer = await http.post(self._token_address, auth=self._credentials(), headers=ACCEPT, json=body)
        except (GithubAway, GithubRefused) as error:
            return str(error)
        if answer.status_code in (404, 422):
            return ""
        if answer.status_code == 401:
            return "GitHub does not know this client id with this secret."
        return f"GitHub answers {answer.status_code}."

    @property
    def _token_address(self) -> str:
        """Where the app itself, by its credentials, asks about tokens."""
        return f"{self._config.api_url}/applications/{self._config.github_client_id}/token"

    def _credentials(self) -> tuple[str, str]:
        return self._config.github_client_id, self._config.client_secret()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client for one question; what another try may mend becomes GithubAway."""
        import httpx2

        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
                yield http
        except (httpx2.HTTPError, ValueError, msgspec.MsgspecError) as error:
            # Without its message: it may have the URL of the request in it, with a code.
            raise GithubAway(f"GitHub cannot be reached at {self._config.url} ({type(error).__name__}).") from None


def _reason(error: str | None, description: str | None) -> str:
    """GitHub's own words, on one line, without an URL it may add."""
    words = " ".join(str(description or error or "it gave no reason").split())
    return "".join(character for character in words if character.isprintable())[:300]


def _tokens(answer: Mapping[str, Any]) -> Tokens:
    if not isinstance(answer.get("access_token"), str):
        raise GithubAway("GitHub gave no token.")
    seconds = answer.get("expires_in")
    ends_at = datetime.now(UTC) + timedelta(seconds=float(seconds)) if seconds else None
    return Tokens(answer["access_token"], str(answer.get("refresh_token") or ""), ends_at)
