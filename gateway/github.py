"""Signing in with GitHub: a browser is sent there, and comes back with a code that we change for the account's tokens.

What the browser gets in the end is a sign-in code like any other, in the fragment of our own page's address: page and
command line redeem it as they do a link. The tokens are sealed for the publisher at once and forgotten here.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from gateway import ticket
from gateway.admission import Admitted, admit
from gateway.errors import Problem
from gateway.sign_in import PEERS_LIMIT, Limiter
from gateway.users import Users
from protocol.ids import token_hash
from protocol.query import Check
from protocol.repo import AskSealingKey, SealingKey
from protocol.routes import Service
from protocol.task import ReceiptStatus
from protocol.user import SignInByGithub
from services.bus import Bus
from services.github import GithubApp, GithubAway, GithubConfig, GithubRefused, Identity, Tokens, bound_to

START = "/api/sign-in/github/start"
CALLBACK = "/api/sign-in/github/callback"
CODE_LIFE = timedelta(minutes=10)
"""The page redeems it as soon as it is there."""
NOT_THIS_BROWSER = (
    "This sign-in was begun in another browser, at another address, or over ten minutes ago: start again."
)
USED = "This sign-in was finished already: start again if you are not signed in."


class Begun(Struct, frozen=True):
    """Where the browser goes, and what it keeps for its return."""

    location: str
    cookie: str


class GithubDoor:
    """Where browsers leave for GitHub and come back."""

    def __init__(self, github: GithubConfig, users: Users, bus: Bus, *, url: str, attempts: int) -> None:
        self.available = github.signs_in
        self.redirect_uri = f"{url}{CALLBACK}"
        """To be registered with the app, to the letter."""
        self.is_secure = url.startswith("https:")
        self._github = github
        self._app = GithubApp(github)
        self._users = users
        self._bus = bus
        self._limiter = Limiter(attempts)
        self._used: OrderedDict[str, None] = OrderedDict()

    @property
    def cookie_name(self) -> str:
        """The prefix keeps other sites of the same domain from setting it (RFC 6265bis)."""
        return "__Host-errand-github" if self.is_secure else "errand-github"

    def begin(self, *, choose: bool = False) -> Begun:
        """Raises Problem where nobody can sign in with GitHub."""
        self._must_be_available()
        pending = ticket.issue(self._key(), secrets.token_hex(16), datetime.now(UTC))
        location = self._app.authorization_url(
            redirect_uri=self.redirect_uri, state=pending.state, verifier=pending.verifier, choose=choose
        )
        return Begun(location, pending.cookie)

    async def finish(self, *, code: str, state: str, error: str, cookie: str, peer: str) -> str:
        """The sign-in code for a browser that is back. Raises Problem, Refused and Unavailable."""
        self._must_be_available()
        if not self._limiter.take(peer):
            raise Problem(429, "Too many attempts to sign in: wait a minute and try again.")
        pending = self._redeem(cookie, state)
        if error or not code:
            raise Problem(403, "GitHub did not let you in, or you did not allow it: start again if you want to.")
        tokens, who = await self._ask(code, pending)
        try:
            return await self._sign_in(pending, tokens, who, admit(who, self._github, self._users))
        except Problem:
            await self._app.revoke(tokens)  # nobody keeps them
            raise

    async def check(self) -> Check:
        """For `errand doctor`: whether GitHub knows the app, and what is to be registered with it."""
        if not self.available:
            return Check("github", "ok", "nobody signs in with GitHub: ERRAND_GITHUB_CLIENT_ID is not set")
        about = f"The app's callback URL has to be {self.redirect_uri}"
        if wrong := await self._app.check():
            return Check("github", "fail", f"{wrong} {about}")
        if not self._github.logins:
            return Check("github", "warn", f"no login may come in: set ERRAND_GITHUB_USERS. {about}")
        allowed = ", ".join(sorted(self._github.logins))
        return Check("github", "ok", f"{allowed} may sign in at {self._github.url}. {about}")

    def _must_be_available(self) -> None:
        if not self.available:
            raise Problem(404, "Nobody can sign in with GitHub here: ERRAND_GITHUB_CLIENT_ID is not set.")

    def _key(self) -> bytes:
        try:
            return ticket.make_key(self._github.client_secret())
        except GithubAway as away:
            raise Problem(500, f"Nobody can sign in with GitHub now: {away}") from None

    def _redeem(self, cookie: str, state: str) -> ticket.Ticket:
        """The pending sign-in that a browser brings back, once. Here only this process remembers; what holds in every
        gateway and for ever is the command's key, see `_sign_in`."""
        pending = ticket.read(self._key(), cookie, datetime.now(UTC))
        if pending is None or not hmac.compare_digest(pending.state.encode(), state.encode()):
            raise Problem(400, NOT_THIS_BROWSER)
        if pending.name in self._used:
            raise Problem(400, USED)
        self._used[pending.name] = None
        if len(self._used) > PEERS_LIMIT:
            self._used.popitem(last=False)
        return pending

    async def _ask(self, code: str, pending: ticket.Ticket) -> tuple[Tokens, Identity]:
        try:
            tokens = await self._app.exchange(code, redirect_uri=self.redirect_uri, verifier=pending.verifier)
            return tokens, await self._app.identify(tokens)
        except GithubRefused as refused:
            raise Problem(400, f"GitHub refused this sign-in: {refused}") from None
        except GithubAway as away:
            raise Problem(502, f"{away} Start again in a moment.") from None

    async def _sign_in(self, pending: ticket.Ticket, tokens: Tokens, who: Identity, admitted: Admitted) -> str:
        code = f"{admitted.user}.{secrets.token_urlsafe(32)}"
        command = SignInByGithub(
            key=f"github-{pending.name}",
            host=self._github.host,
            account=who.account,
            login=who.login,
            listed=admitted.listed,
            sealed=await self._seal(tokens, admitted.user),
            code_hash=token_hash(code),
            expires_at=datetime.now(UTC) + CODE_LIFE,
        )
        receipt = await self._users.command(admitted.user, command)
        if receipt.status is not ReceiptStatus.CONSUMED:
            raise Problem(403, receipt.reason)
        user = self._users.get(admitted.user)
        if user is None or command.code_hash not in user.codes:
            # The receipt is another command's of the same key: this ticket was used before, in another process.
            raise Problem(400, USED)
        return code

    async def _seal(self, tokens: Tokens, user: str) -> str:
        # The cryptography package costs 6 MiB, and people sign in rarely.
        import msgspec

        from services.envelope import seal

        key = await self._bus.ask(Service.REPOS, AskSealingKey(), SealingKey)
        return seal(key.public_key, bound_to(self._github.host, user), msgspec.json.encode(tokens).decode())
