"""Which addresses git ever gets to see, and how they are written from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.repo import BRANCH, normal_host
from services.bus import Refused
from services.repos.address import Address, on_disk, parse
from services.repos.cache import short_name

GOOD = [
    ("https://github.com/o/r", "https://github.com/o/r", "github.com", "as it is"),
    ("  https://github.com/o/r.git/ \n", "https://github.com/o/r.git", "github.com", "what a paste adds is dropped"),
    ("HTTPS://GitHub.COM/O/R", "https://github.com/O/R", "github.com", "scheme and host have no case, a path has"),
    ("https://git.lan:8443/r", "https://git.lan:8443/r", "git.lan:8443", "a port is part of the host"),
    ("https://git.lan:443/r", "https://git.lan/r", "git.lan", "the default port is not"),
    ("http://git.lan/r", "http://git.lan/r", "git.lan:80", "what is kept for https is not sent in the clear"),
    ("http://git.lan:80/r", "http://git.lan/r", "git.lan:80", "the same, written out"),
    ("http://127.0.0.1:3000/r", "http://127.0.0.1:3000/r", "127.0.0.1:3000", "an address for a name"),
    ("https://[::1]:8443/r", "https://[::1]:8443/r", "[::1]:8443", "IPv6"),
    ("https://org@dev.azure.com/org/p/_git/r", "https://dev.azure.com/org/p/_git/r", "dev.azure.com", "a user alone"),
    ("https://host/a%20b", "https://host/a%20b", "host", "percent-encoded"),
    ("git@github.com:o/r.git", "git@github.com:o/r.git", "github.com", "scp's form"),
    ("github.com:o/r", "git@github.com:o/r", "github.com", "scp's form without a user"),
    ("host:/srv/r.git", "ssh://git@host/srv/r.git", "host", "scp's form with an absolute path is a URL"),
    ("me@host:~/r.git", "me@host:~/r.git", "host", "relative to a home folder"),
    ("ssh://host/r", "ssh://git@host/r", "host", "ssh without a user"),
    ("ssh://me@host:2222/r", "ssh://me@host:2222/r", "host:2222", "ssh with a port"),
    ("ssh://git@host:22/r", "ssh://git@host/r", "host", "ssh with its default port"),
    ("git+ssh://git@host/r", "ssh://git@host/r", "host", "an old name of ssh"),
]


@pytest.mark.parametrize(("text", "url", "host", "why"), GOOD)
def test_an_address_has_one_normal_form(text: str, url: str, host: str, why: str) -> None:
    address = parse(text)
    assert (address.url, address.host) == (url, host), why
    assert parse(address.url) == address, "the normal form of a normal form is itself"


BAD = [
    ("", "empty"),
    ("   ", "blank"),
    ("-oProxyCommand=touch /tmp/x", "an option"),
    ("--upload-pack=touch /tmp/x", "an option of git"),
    (" --upload-pack=x", "an option behind a space"),
    ("ext::sh -c 'touch /tmp/x'", "a transport that runs a command"),
    ("fd::17", "a transport over a descriptor"),
    ("https::https://host/r", "a transport helper"),
    ("::x", "a helper without a name"),
    ("file:///etc", "a path, not the owner"),
    ("/etc", "a path, not the owner"),
    ("git://host/r", "not authenticated at all"),
    ("ftp://host/r", "another scheme"),
    ("javascript:alert(1)//", "no scheme of ours: read as scp, with characters of no path"),
    ("https://-oProxyCommand=x/r", "an option as host"),
    ("ssh://-oProxyCommand=x/r", "CVE-2017-1000117"),
    ("ssh://git@-oProxyCommand=x/r", "the same behind a user"),
    ("ssh://-oProxyCommand=x@host/r", "an option as user"),
    ("-oProxyCommand=x@host:r", "an option as scp's user"),
    ("host:-r", "an option as scp's path"),
    ("git@host:--upload-pack=x", "an option as scp's path"),
    ("https://host/r?service=x", "a query"),
    ("https://host/r#x", "a fragment"),
    ("https://host/a b", "a space"),
    ("https://host/a\nb", "a line's end"),
    ("https://host/a%0ab", "CVE-2020-5260: a line's end for the credential helper"),
    ("https://host/a%00b", "a NUL"),
    ("https://host/%2e%2e/b", "dots, encoded"),
    ("https://host/../b", "dots"),
    ("https://host\\@evil/r", "a backslash"),
    ("https://host/'x'", "quotes"),
    ("https://host/`x`", "backquotes"),
    ("https://host", "no path"),
    ("https://host/", "no path"),
    ("https:///r", "no host"),
    ("https://host:0/r", "no such port"),
    ("https://host:99999/r", "no such port"),
    ("https://ho st/r", "a space in the host"),
    ("https://höst/r", "a host that is not ASCII"),
    ("https://host%2f/r", "an encoded host"),
    ("host:", "scp without a path"),
    ("just-a-name", "no address"),
    ("owner/name", "no address"),
    ("x" * 1001, "too long"),
    ("https://host/\u2028x", "a line's end of Unicode"),
    ("https://host/\x1b[31m", "an escape"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(text)
    assert refused.value.reason.endswith("."), why


@pytest.mark.parametrize(
    "text",
    [
        "https://user:s3cret@host/r",
        "https://:s3cret@host/r",
        "https://user:s3cret@part@host/r",
        "http://x-access-token:s3cret@host/r",
        "ssh://git:s3cret@host/r",
        "htps://user:s3cret@host/r",
        "https://user:s3cret@/r",
        "user:s3cret@host:r",
    ],
)
@pytest.mark.parametrize("is_owner", [True, False])
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str, is_owner: bool) -> None:
    with pytest.raises(Refused) as refused:
        parse(text, is_owner=is_owner)
    assert "s3cret" not in refused.value.reason


def test_a_user_name_that_may_be_a_token_goes_no_further() -> None:
    assert "ghp_" not in repr(parse("https://ghp_abcdefghijklmnop@github.com/o/r"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/r.git", "/srv/r.git"),
        ("/srv//x/../r.git/", "/srv/r.git"),
        ("//srv/r", "/srv/r"),
        ("file:///srv/r", "/srv/r"),
        ("file://localhost/srv/r", "/srv/r"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("/srv/ä \"b'", "/srv/ä \"b'"),
    ],
)
def test_a_path_is_the_owners(text: str, path: str) -> None:
    assert parse(text, is_owner=True) == Address(path, "path", for_owner=True)
    with pytest.raises(Refused):
        parse(text)


@pytest.mark.parametrize("text", ["https://host/r", "http://host/r", "ssh://host/r", "host:/r", "host:r"])
def test_what_the_owner_sees_of_a_repository_is_copied_apart(text: str) -> None:
    owners, users = parse(text, is_owner=True), parse(text)
    assert (owners.url, owners.host) == (users.url, users.host)
    assert owners != users
    assert short_name(owners) != short_name(users)


def test_a_path_into_our_own_data_is_refused_also_through_a_link(tmp_path: Path) -> None:
    data, open_folder = tmp_path / "data", tmp_path / "data" / "repositories"
    for folder in (data / "workspaces" / "t-1", open_folder / "mine", tmp_path / "theirs"):
        (folder / ".git").mkdir(parents=True)
    (tmp_path / "link").symlink_to(data / "workspaces" / "t-1")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in (
        ("data/workspaces/t-1", "own data folder"),
        ("link", "own data folder"),
        ("data", "own data folder"),
        ("loop", "no git repository"),
        ("nothing", "no git repository"),
    ):
        with pytest.raises(Refused, match=words):
            on_disk(Address(str(tmp_path / name), "path"), data, open_folder)
    for name in ("data/repositories/mine", "theirs"):
        address = Address(str(tmp_path / name), "path")
        assert on_disk(address, data, open_folder) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [("GitHub.com", "github.com"), (" a.b:443 ", "a.b"), ("a:22", "a"), ("a:80", "a:80"), ("[::1]:8", "[::1]:8")],
)
def test_a_host_has_one_normal_form(text: str, host: str) -> None:
    assert normal_host(text) == host


@pytest.mark.parametrize("text", ["", "-a", "https://a", "a/b", "a b", "a:x", "a:99999", "a:0", "u@a", "a\n", "::1"])
def test_what_is_no_host_is_refused(text: str) -> None:
    if text == "a\n":
        assert normal_host(text) == "a", "what a paste adds is dropped"
        return
    with pytest.raises(ValueError, match="A git host is"):
        normal_host(text)


@pytest.mark.parametrize(
    ("branch", "allowed"),
    [
        ("errand/t1-fix-it", True),
        ("errand/t1-v1.2", True),
        ("errand/t1.", False),
        ("errand/t1..2", False),
        ("errand/-x", False),
        ("errand/x/y", False),
        ("main", False),
        ("errand/x\n", False),
        ("errand/" + "x" * 122, False),
    ],
)
def test_a_branch_of_ours_has_a_safe_name(branch: str, allowed: bool) -> None:
    assert (BRANCH.fullmatch(branch) is not None) == allowed
