"""Which server, and as whom: `<data>/client.json`, or ERRAND_SERVER and ERRAND_TOKEN."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.cli.failure import Failure

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SIGN_IN = "run `errand up` on the server, or `errand login LINK` with a link from it"


class Account(Struct, frozen=True, kw_only=True):
    """What `client.json` holds."""

    server: str
    """Such as `http://127.0.0.1:8000`, without a slash at its end."""
    token: str
    seen: int = 0
    """The highest stream sequence this machine has seen: `errand sql` answers from a history that has reached it."""

    @property
    def is_local(self) -> bool:
        """Whether the server is this machine: then no proxy is asked."""
        return urlsplit(self.server).hostname in LOOPBACK


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """ERRAND_DATA, else where a user's programs keep their data."""
    given = environment.get("ERRAND_DATA")
    return Path(given).expanduser().absolute() if given else Path.home() / ".local" / "share" / "errand"


def account_file(data: Path) -> Path:
    return data / "client.json"


def stored(data: Path) -> Account | None:
    """The account of this machine; None where it has none."""
    path = account_file(data)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Account)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Failure(f"{path} cannot be read ({error}): remove it and {SIGN_IN}.") from None


def find(data: Path, server: str = "", environment: Mapping[str, str] = os.environ) -> Account:
    """The account to use. A stored token is sent to no other server than its own."""
    asked = server_url(server or environment.get("ERRAND_SERVER", ""))
    token = environment.get("ERRAND_TOKEN", "")
    known = stored(data)
    if not asked and known is None:
        raise Failure(f"This machine is not signed in: {SIGN_IN}.")
    if known is not None and asked in ("", known.server):
        return replace(known, token=token or known.token)
    if not token:
        raise Failure(f"There is no token for {asked}: set ERRAND_TOKEN, or {SIGN_IN}.")
    return Account(server=asked, token=token)


def save(data: Path, account: Account) -> None:
    """Write the account, readable by this user alone."""
    from services.secrets_file import write_secret

    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(account_file(data), msgspec.json.encode(account).decode() + "\n")


def remember(data: Path, account: Account, sequence: int) -> None:
    """Keep the highest sequence seen, for the account that is stored."""
    known = stored(data)
    if known is not None and known.server == account.server and sequence > known.seen:
        save(data, replace(known, seen=sequence))


def server_url(text: str) -> str:
    """A server's address as it is compared and stored; empty stays empty."""
    text = text.strip()
    if not text:
        return ""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.fragment:
        raise Failure("This is a sign-in link: use it with `errand login LINK`.")
    if parts.scheme not in ("http", "https") or not parts.hostname or _bad_port(parts.netloc):
        raise Failure(f"{text!r} is not a server's address: it looks like http://127.0.0.1:8000.")
    if parts.username or parts.password:
        raise Failure("A server's address has no user name or password in it: the token is sent apart from it.")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _bad_port(netloc: str) -> bool:
    try:
        return urlsplit(f"//{netloc}").port == 0
    except ValueError:
        return True
