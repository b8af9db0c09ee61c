"""Which hosts a sandbox may reach, by names alone; and what a user is told of what was refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.addresses import is_public
from sandbox.config import Config, egress
from sandbox.drivers import Drivers
from sandbox.egress.outside import is_own
from sandbox.egress.policy import Allowed, Refusal, normal_host, parse, refusal
from sandbox.egress.refusals import MORE, TOLD_LIMIT, Refusals
from sandbox.egress.suffixes import doubts

LIST = parse("example.com, *.wild.example.com, plain.example.com:80 odd.example.com:8443")[1]


@pytest.mark.parametrize(
    ("host", "port", "is_allowed", "why"),
    [
        ("example.com", 443, True, "it is on the list"),
        ("EXAMPLE.com", 443, True, "names have no case"),
        ("example.com.", 443, True, "the root's dot says nothing"),
        ("example.com", 80, False, "plain HTTP only where it is said"),
        ("example.com", 22, False, "no other port"),
        ("www.example.com", 443, False, "a name stands for itself"),
        ("example.com.evil.org", 443, False, "the end of a name says whose it is"),
        ("evilexample.com", 443, False, "a label is whole"),
        ("a.wild.example.com", 443, True, "below the star"),
        ("a.b.wild.example.com", 443, True, "however deep"),
        ("wild.example.com", 443, False, "the star stands for something"),
        (".wild.example.com", 443, False, "for a label"),
        ("plain.example.com", 80, True, "as it was said"),
        ("plain.example.com", 443, False, "as it was said and no more"),
        ("odd.example.com", 8443, True, "a port of its own"),
        ("127.0.0.1", 443, False, "an address"),
        ("2130706433", 443, False, "an address to some"),
        ("0x7f.1", 443, False, "an address to some"),
        ("example.0x1", 443, False, "ends in a number"),
        ("[::1]", 443, False, "an address"),
        ("::ffff:127.0.0.1", 443, False, "an address"),
        ("localhost", 443, False, "a name without a dot"),
        ("", 443, False, "no name"),
        (".", 443, False, "no name"),
        ("example.com..", 443, False, "no name"),
        ("example.com\0.evil.org", 443, False, "C would stop reading there"),
        ("example.com%00.evil.org", 443, False, "escapes are no part of names"),
        ("example.com\r\nX: y", 443, False, "a header is none either"),
        ("user@example.com", 443, False, "nor a user"),
        ("example.com#", 443, False, "nor a fragment"),
        ("exa\u2024mple.com", 443, False, "some would fold it to a dot"),
        ("\u212aelvin.example.com", 443, False, "not ASCII: some would fold it to a k"),
        ("a" * 64 + ".wild.example.com", 443, False, "longer than a label"),
        ("a." * 120 + "wild.example.com", 443, False, "longer than a name"),
    ],
)
def test_a_host_is_allowed_by_its_name_and_port_alone(host: str, port: int, is_allowed: bool, why: str) -> None:
    assert (refusal(host, port, LIST) is None) == is_allowed, why


@pytest.mark.parametrize("host", ["10.0.0.1", "\0" * 5000, "é.example.com", "x" * 5000, "evil\n.example.org"])
def test_what_is_told_of_a_refusal_is_one_short_line_of_ascii(host: str) -> None:
    refused = refusal(host, 443, LIST)
    assert refused is not None
    assert refused.reason.isascii()
    assert refused.reason.isprintable()
    assert len(refused.reason) < 400


@pytest.mark.parametrize(
    ("host", "is_refused", "why"),
    [
        ("*.co.uk", True, "anybody has a name below it for some pounds"),
        ("*.foo.ck", True, "the list has a star for all of .ck"),
        ("co.uk", False, "one name, though nobody has it"),
        ("*.example.co.uk", False, "somebody's own"),
        ("*.github.io", False, "warned of: its owner may mean it"),
        ("*.corp.internal", False, "no registry's"),
    ],
)
def test_a_star_for_all_that_a_registry_sells_is_refused(host: str, is_refused: bool, why: str) -> None:
    if not is_refused:
        Config(sandbox_egress=host)
        return
    with pytest.raises(ValueError, match=r"^ERRAND_SANDBOX_EGRESS: \*\..* give the hosts, as example\."):
        Config(sandbox_egress=host)
    with pytest.raises(ValueError, match=r"^ERRAND_SANDBOX_REGISTRIES: "):
        Config(sandbox_registries=host)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("example.com", ""),
        ("*.example.com", ""),
        ("me.github.io", ""),
        ("*.github.io", "github.io gives to anybody"),
        ("*.s3.amazonaws.com", "s3.amazonaws.com gives to anybody"),
        ("internal.corp", "in no public domain"),
        ("*.internal.corp", "in no public domain"),
    ],
)
def test_what_an_owner_should_look_at_again_is_said(host: str, says: str) -> None:
    said = " ".join(doubts(parse(host)[1]))
    assert says in said if says else said == ""


def test_a_list_of_commas_names_nothing(tmp_path: Path) -> None:
    assert not Drivers(Config(sandbox="unsandboxed", sandbox_egress=" , "), tmp_path).wants_egress


def test_a_refusal_says_what_can_be_done() -> None:
    refused = refusal("Files.Example.org", 8443, LIST)
    assert refused is not None
    assert refused.reason == (
        "files.example.org:8443 is not among the hosts that tasks may reach; the owner can add files.example.org:8443 "
        "to ERRAND_SANDBOX_EGRESS"
    )
    other_port = refusal("example.com", 22, LIST)
    assert other_port is not None
    assert other_port.reason.startswith("example.com:22 at this port is not among")


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.1", "127.1", "[::1]", "localhost", "*", "*.", "*.com", "exa mple", "a.*.example.com", "npn"),
        *("example.com:x", "example.com:0", "example.com:70000", "https://example.com", "a.org/b", "bücher.example"),
    ],
)
def test_a_wrong_list_is_refused_with_the_settings_name(text: str) -> None:
    with pytest.raises(ValueError, match="ERRAND_SANDBOX_EGRESS: "):
        Config(sandbox_egress=text)


def test_nothing_is_allowed_unless_it_is_said() -> None:
    assert egress(Config()).allowed == ()
    assert parse(" , ")[1] == ()


def test_a_word_stands_for_the_registries_that_the_owner_names() -> None:
    words, allowed = parse("registries, Example.COM example.com", "packages.example.org, files.example.org:80")
    assert words == ("registries", "example.com")
    hosts = [("packages.example.org", 443), ("files.example.org", 80), ("example.com", 443)]
    assert allowed == tuple(Allowed(host, port) for host, port in hosts)
    assert parse("example.com", "packages.example.org")[1] == (Allowed("example.com", 443),)
    with pytest.raises(ValueError, match=r"ERRAND_SANDBOX_EGRESS: registries stands for nothing: .*REGISTRIES"):
        Config(sandbox_egress="registries")
    with pytest.raises(ValueError, match=r"ERRAND_SANDBOX_REGISTRIES: 10\.0\.0\.1 is no host"):
        Config(sandbox_registries="10.0.0.1")


def test_a_name_has_one_form() -> None:
    assert normal_host("XN--Bcher-KVA.Example.") == "xn--bcher-kva.example"


def test_a_user_is_told_each_host_once_and_of_very_many_not_all() -> None:
    told: list[Refusal] = []
    refusals = Refusals(told.append)
    for number in range(10_000):
        for _ in range(2):
            refusals.add(Refusal(host=f"h{number}.example.com", port=443, reason="is not allowed"))
    assert len(told) == TOLD_LIMIT + 1
    assert len({refusal.host for refusal in told}) == TOLD_LIMIT + 1
    assert told[-1] == MORE


def test_this_machines_own_addresses_are_known() -> None:
    assert is_own("127.0.0.1")
    assert not is_own("192.0.2.1")
    assert not is_public("127.0.0.1")
