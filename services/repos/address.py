"""A repository's address: the one place that decides which ones git ever gets to see, and how each is written from then
on."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from protocol.repo import HOST, normal_host
from protocol.task import REPOSITORY_LIMIT_CHARS
from services.bus import Refused

DEFAULT_PORTS = {"https": "443", "ssh": "22"}
# No quotes, spaces, backslashes, queries or fragments: nothing that a shell, a config file or another parser reads
# differently.
URL_TEXT = re.compile(r"[A-Za-z0-9._~:/@+,=%\[\]-]+")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
SCP = re.compile(r"(?:([^@/:]*)@)?([^@/:]+):(.+)", re.DOTALL)
HELPER = re.compile(r"[A-Za-z0-9+._-]*::")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

NOT_AN_ADDRESS = (
    "This is not a repository's address. Give a URL such as https://github.com/owner/name or git@github.com:owner/name"
)
HAS_PASSWORD = (
    "The address has a password or token in it. Leave it out, change it if it was real, and give it once with "
    "`errand host add HOST`"
)


class Address(Struct, frozen=True):
    """A repository's address in its normal form: equal addresses are the same repository, seen with the same rights."""

    url: str
    """What git gets, without any credential."""
    scheme: str
    """`https`, `http`, `ssh` or `path`."""
    host: str = ""
    """What a credential is kept for, as `normal_host` writes it; empty for a path."""
    for_owner: bool = False
    """For a task of the owner's, who may reach and read what other users may not: it is copied apart from theirs."""
    private_to: str = ""
    """The user who reads it with an own account at the host, and so maybe what nobody else may: copied apart, too."""

    @property
    def name(self) -> str:
        """The last word of the address, for people."""
        word = re.split(r"[/:]", self.url)[-1].removesuffix(".git")
        return re.sub(r"[^A-Za-z0-9._-]", "-", word).lstrip(".-") or "repository"

    @property
    def protocols(self) -> str:
        """What git may speak to reach it: https is never redirected to plain http."""
        return {"path": "file", "http": "http:https"}.get(self.scheme, self.scheme)


def parse(text: str, *, is_owner: bool = False) -> Address:
    """The address that a user wrote, in its normal form. Raises Refused with a sentence that does not repeat what was
    written: it may have a secret in it. Looks at nothing but the text."""
    text = text.strip(" \t\r\n")
    if not text:
        raise Refused("Say which repository: its address is empty.")
    if len(text) > REPOSITORY_LIMIT_CHARS:
        raise Refused(f"The repository's address is over the limit of {REPOSITORY_LIMIT_CHARS} characters.")
    if text.startswith("-"):
        raise Refused("A repository's address cannot begin with '-': that would be an option.")
    if UNPRINTABLE.search(text):
        raise Refused("The repository's address has control characters in it.")
    if HELPER.match(text):
        raise Refused("Addresses of the form helper::address run programs; they are not allowed. Use https or ssh.")
    if text.startswith("/"):
        return _path(text, is_owner)
    if match := SCHEME.fullmatch(text):
        return _url(match[1].lower(), match[2], is_owner)
    if match := SCP.fullmatch(text):
        return _scp(match[1], match[2], match[3], is_owner)
    raise Refused(NOT_AN_ADDRESS + (", or an absolute path on the server." if is_owner else "."))


def _path(text: str, is_owner: bool) -> Address:
    if not is_owner:
        raise Refused("Only the owner can use a path on the server. Give the repository's URL.")
    return Address("/" + posixpath.normpath(text).lstrip("/"), "path", for_owner=True)


def _url(scheme: str, rest: str, is_owner: bool) -> Address:
    if scheme == "file":
        path = unquote(rest.removeprefix("localhost"))
        if not path.startswith("/") or UNPRINTABLE.search(path):
            raise Refused(NOT_AN_ADDRESS + ".")
        return _path(path, is_owner)
    scheme = "ssh" if scheme in ("git+ssh", "ssh+git") else scheme
    if scheme not in ("https", "http", "ssh"):
        raise Refused("Only https, http and ssh addresses can be used.")
    authority, _, path = rest.partition("/")
    user, _, host_text = authority.rpartition("@")
    _check_user(user)
    host = _host(host_text, scheme)
    path = _checked_path(path)
    _check_text(authority + path)
    # An http user name is dropped: whose credential it is, `errand host add` says.
    prefix = f"{user or 'git'}@" if scheme == "ssh" else ""
    shown = host.removesuffix(":80") if scheme == "http" else host
    return Address(f"{scheme}://{prefix}{shown}/{path}", scheme, host, is_owner)


def _scp(user: str | None, host_text: str, path: str, is_owner: bool) -> Address:
    """`git@host:path`: with ssh, and relative to the home folder there, which a URL cannot say."""
    _check_user(user or "")
    if "@" in path.partition("/")[0]:
        raise Refused(HAS_PASSWORD + ".")
    host = _host(host_text, "ssh")
    if path.startswith("/"):
        return _url("ssh", f"{user or 'git'}@{host}{path}", is_owner)
    if path.startswith(("-", ":")):
        raise Refused("The repository's path cannot begin with '-' or ':'.")
    path = _checked_path(path)
    _check_text(path)
    return Address(f"{user or 'git'}@{host}:{path}", "ssh", host, is_owner)


def _check_user(user: str) -> None:
    if ":" in user or "@" in user:
        raise Refused(HAS_PASSWORD + ".")
    if user and not USER.fullmatch(user):
        raise Refused("The user name in the repository's address cannot be used.")


def _host(text: str, scheme: str) -> str:
    """The host as credentials are kept for it; plain http always with its port, see `normal_host`."""
    host = text.lower()
    match = HOST.fullmatch(host)
    if match is None:
        raise Refused("The repository's address has no usable host name.")
    if match["port"] is None:
        return f"{host}:80" if scheme == "http" else host
    if match["port"] == DEFAULT_PORTS.get(scheme):
        return match["name"]
    try:
        # A port that is the default of another scheme stays: https://host:22 is not ssh's host.
        normal_host(host)
    except ValueError as error:
        raise Refused(str(error)) from None
    return host


def _checked_path(path: str) -> str:
    path = path.rstrip("/")
    plain = unquote(path)
    if not path.strip("/") or UNPRINTABLE.search(plain) or "\\" in plain:
        raise Refused(NOT_AN_ADDRESS + ".")
    if plain.startswith("-") or ".." in plain.split("/"):
        raise Refused("The repository's path cannot have '..' in it or begin with '-'.")
    return path


def _check_text(text: str) -> None:
    if "?" in text or "#" in text:
        raise Refused("The repository's address cannot have a query or fragment ('?', '#').")
    if not URL_TEXT.fullmatch(text):
        raise Refused("The repository's address has characters that a URL cannot have; write them percent-encoded.")


def on_disk(address: Address, data: Path, open_folder: Path) -> Address:
    """A path's address with every link resolved; others as they are. Raises Refused unless a repository is there.

    Nothing of our own data can be named, except what lies in `open_folder`: a workspace was written by an agent.
    """
    if address.scheme != "path":
        return address
    missing = Refused(f"There is no git repository at {address.url} on the server.", "not_found")
    try:
        path = Path(address.url).resolve(strict=True)
        found = (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())
    except (OSError, RuntimeError):
        raise missing from None
    if path.is_relative_to(data.resolve()) and not path.is_relative_to(open_folder.resolve()):
        raise Refused(f"{address.url} is inside Errand's own data folder.")
    if not found:
        raise missing
    return replace(address, url=str(path))
