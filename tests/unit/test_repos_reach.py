"""Which hosts another user's task may lead git to, and how git is kept at the address that was looked at."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.addresses import is_public
from services.bus import Refused
from services.config import WrongSetting
from services.reach import look_up
from services.repos.address import parse
from services.repos.git import OLDEST_THAT_PINS, Git, Remote
from services.repos.reach import Reach, http_settings, ssh_options

NAMES = {
    "github.com": ["140.82.121.3", "2606:50c0:8000::153"],
    "inside.example": ["10.1.2.3"],
    "half.example": ["140.82.121.3", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "nothing.example": [],
    "localhost": ["::1", "127.0.0.1"],
}


async def names(name: str) -> Sequence[str]:
    if name == "slow.example":
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if name not in NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return NAMES[name]


@pytest.mark.parametrize(
    ("address", "public", "why"),
    [
        ("140.82.121.3", True, "GitHub"),
        ("2606:50c0:8000::153", True, "GitHub's pages"),
        ("64:ff9b::8c52:7903", True, "GitHub behind NAT64"),
        ("127.0.0.1", False, "loopback"),
        ("127.255.0.9", False, "all of it"),
        ("0.0.0.0", False, "this host"),
        ("10.0.0.1", False, "private"),
        ("172.16.0.1", False, "private"),
        ("192.168.1.1", False, "private"),
        ("100.64.0.1", False, "carrier-grade NAT"),
        ("169.254.169.254", False, "a cloud's metadata"),
        ("192.88.99.1", False, "6to4 relay"),
        ("168.63.129.16", False, "Azure's own services"),
        ("3fff::1", False, "documentation"),
        ("198.18.0.1", False, "benchmarks"),
        ("224.0.0.1", False, "multicast"),
        ("255.255.255.255", False, "broadcast"),
        ("::", False, "this host"),
        ("::1", False, "loopback"),
        ("::127.0.0.1", False, "IPv4-compatible"),
        ("::ffff:127.0.0.1", False, "IPv4-mapped"),
        ("::ffff:140.82.121.3", False, "IPv4-mapped: no name has such an address"),
        ("64:ff9b::7f00:1", False, "loopback behind NAT64"),
        ("64:ff9b:1::1", False, "local NAT64"),
        ("fe80::1%eth0", False, "link-local"),
        ("fc00::1", False, "private"),
        ("fd00:ec2::254", False, "a cloud's metadata"),
        ("fec0::1", False, "site-local, of old"),
        ("ff02::1", False, "multicast"),
        ("2001:db8::1", False, "examples"),
        ("2002:7f00:1::", False, "loopback in 6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False, "Teredo"),
    ],
)
def test_what_a_public_address_is(address: str, public: bool, why: str) -> None:
    assert is_public(address) == public, why


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url",
    [
        "https://inside.example/r",
        "https://half.example/r",
        "https://mapped.example/r",
        "http://metadata.example/r",
        "https://nothing.example/r",
        "https://unknown.example/r",
        "http://localhost:6379/r",
        "http://127.0.0.1:22/r",
        "http://[::1]:22/r",
        "http://[::ffff:127.0.0.1]/r",
        "http://169.254.169.254/latest",
        "https://2130706433/r",
        "https://0x7f000001/r",
        "https://0177.0.0.1/r",
        "https://127.1/r",
        "https://0x7f.1/r",
        "https://140.82.121.03/r",
        "ssh://inside.example:2222/r",
        "git@inside.example:o/r",
        "127.0.0.1:r",
    ],
)
async def test_what_is_not_public_is_the_owners_and_refused_in_one_way(url: str) -> None:
    address = parse(url)
    with pytest.raises(Refused) as refused:
        await Reach("", names).addresses(address)
    assert refused.value.code == "refused"
    assert refused.value.reason == (
        f"Errand cannot use {address.host} for you: it has no public address. "
        "The owner can allow it (ERRAND_INTERNAL_HOSTS)."
    )
    assert await Reach("", names).addresses(parse(url, is_owner=True)) == ()


@pytest.mark.anyio
async def test_a_lookup_that_fails_for_now_may_be_tried_again() -> None:
    with pytest.raises(Refused) as refused:
        await Reach("", names).addresses(parse("https://slow.example/r"))
    assert refused.value.code == "unavailable"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("setting", "url", "allowed"),
    [
        ("inside.example", "https://inside.example/r", True),
        (" Other.example , INSIDE.example:443,", "https://inside.example/r", True),
        ("inside.example", "git@inside.example:o/r", True),
        ("inside.example", "http://inside.example/r", True),
        ("inside.example", "http://inside.example:6379/r", False),
        ("inside.example", "https://x.inside.example/r", False),
        ("inside.example:8443", "https://inside.example:8443/r", True),
        ("inside.example:8443", "https://inside.example/r", False),
        ("[::1]", "https://[::1]/r", True),
        (",", "https://inside.example/r", False),
    ],
)
async def test_a_host_that_the_owner_named_is_everybodys(setting: str, url: str, allowed: bool) -> None:
    reach = Reach(setting, names)
    if allowed:
        assert await reach.addresses(parse(url)) == ()
        return
    with pytest.raises(Refused):
        await reach.addresses(parse(url))


@pytest.mark.parametrize("setting", ["https://git.lan", "10.0.0.0/8", "a b", "git.lan:99999"])
def test_a_wrong_setting_is_named(setting: str) -> None:
    with pytest.raises(WrongSetting, match="ERRAND_INTERNAL_HOSTS"):
        Reach(setting)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("https://github.com/o/r", {"http.curloptResolve": "github.com:443:140.82.121.3,2606:50c0:8000::153"}),
        ("https://github.com:8443/r", {"http.curloptResolve": "github.com:8443:140.82.121.3,2606:50c0:8000::153"}),
        ("http://github.com/r", {"http.curloptResolve": "github.com:80:140.82.121.3,2606:50c0:8000::153"}),
        ("https://140.82.121.3/r", {}),
        ("https://[2606:50c0:8000::153]/r", {}),
    ],
)
async def test_git_stays_at_the_addresses_that_were_looked_at(url: str, settings: dict[str, str]) -> None:
    address = parse(url)
    found = await Reach("", names).addresses(address)
    assert http_settings(address, found) == {"http.followRedirects": "false", "http.proxy": "", **settings}
    assert http_settings(address, ()) == {"http.followRedirects": "false"}
    assert http_settings(parse(url, is_owner=True), ()) == {}


@pytest.mark.anyio
async def test_ssh_stays_there_too_and_knows_the_host_by_its_name() -> None:
    for url, alias in (("git@github.com:o/r", "github.com"), ("ssh://github.com:2222/r", "[github.com]:2222")):
        address = parse(url)
        found = await Reach("", names).addresses(address)
        assert ssh_options(address, found) == ("HostName=140.82.121.3", f"HostKeyAlias={alias}")
        assert ssh_options(address, ()) == ()


@pytest.mark.anyio
async def test_names_are_looked_up_by_the_machines_own_rules() -> None:
    assert set(await look_up("localhost")) <= {"127.0.0.1", "::1"}
    for name in ("x" * 300, "under_score.invalid", "a..b"):
        with pytest.raises(socket.gaierror):
            await look_up(name)


@pytest.mark.anyio
async def test_a_git_that_cannot_be_kept_at_an_address_is_not_started(tmp_path: Path) -> None:
    git = Git(tmp_path, {})  # its version was never asked for: older than all
    pinned = Remote(
        url="https://x/r", protocols="https", place="x", settings={"http.curloptResolve": "x:443:140.82.121.3"}
    )
    with pytest.raises(Refused, match=".".join(map(str, OLDEST_THAT_PINS))):
        await git.run("ls-remote", "--", pinned.url, remote=pinned)
