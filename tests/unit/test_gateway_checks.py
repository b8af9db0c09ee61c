"""What is refused before it becomes a command, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway import checks
from gateway.config import Config
from gateway.errors import Problem
from gateway.sign_in import WINDOW_SECONDS, Limiter
from protocol.live import Submit
from protocol.rules import PATTERN_LIMIT_CHARS, RULES_LIMIT, Rule, RuleAction
from protocol.task import Budget
from protocol.texts import PROMPT_LIMIT_CHARS

GOOD: dict[str, Any] = {"key": "k-1", "prompt": "Fix it", "repository": "https://git.example/a/b.git"}
LONG_RULE = Rule(action=RuleAction.ALLOW, tool="bash", pattern="x" * PATTERN_LIMIT_CHARS)


@pytest.mark.parametrize(
    ("change", "is_owner", "why"),
    [
        ({}, False, "the plain case"),
        ({"prompt": "x" * PROMPT_LIMIT_CHARS}, False, "just at the limit"),
        ({"prompt": "修" * PROMPT_LIMIT_CHARS}, False, "of a script with three bytes a character"),
        ({"rules": (LONG_RULE,) * RULES_LIMIT}, False, "as many of the longest rules as there may be"),
        ({"repository": "git@github.com:owner/name.git"}, False, "git's short form"),
        ({"repository": "ssh://git@git.example:2222/a"}, False, "ssh with a port"),
        ({"repository": "https://me@git.example/a/b"}, False, "a user name alone is dropped later"),
        ({"repository": "https://[2001:db8::1]/a"}, False, "an IPv6 host is no helper"),
        ({"repository": "/srv/git/a repository.git"}, True, "a path, for the owner"),
        ({"repository": "https://git.example/a/my-repo--x"}, False, "dashes inside a name"),
        ({"base": "release/1.2"}, False, "a branch with a slash"),
        ({"base": "deadbeef"}, False, "a commit"),
        ({"budget": Budget(money_usd=0, tokens=None)}, False, "zero means zero, null unlimited"),
        ({"model": "claude-opus-5-5"}, False, "a model"),
        ({"queue": "gpu", "labels": ("arm64", "cuda-12.4"), "priority": -10}, False, "another queue and labels"),
    ],
)
def test_good_tasks_pass(change: dict[str, Any], is_owner: bool, why: str) -> None:
    checks.submit(Submit(**{**GOOD, **change}), is_owner=is_owner)


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": " \n\t"}, "prompt", "only white space"),
        ({"prompt": "x" * (PROMPT_LIMIT_CHARS + 1)}, "prompt", "too long"),
        ({"prompt": "\x01" * (PROMPT_LIMIT_CHARS // 2 + 1)}, "prompt", "too long as it travels"),
        ({"rules": (LONG_RULE,) * (RULES_LIMIT + 1)}, "rules", "too many"),
        ({"rules": (replace(LONG_RULE, pattern="🔥" * 500),) * 40}, "rules", "too long as they travel"),
        ({"key": ""}, "key", "none"),
        ({"key": "a b"}, "key", "would break a header"),
        ({"key": "a\r\nNats-Rollup: all"}, "key", "a header in a header"),
        ({"key": "x" * 201}, "key", "too long"),
        ({"key": "schlüssel"}, "key", "not ASCII"),
        ({"repository": ""}, "repository", "none"),
        ({"repository": "x" * 1001}, "repository", "too long"),
        ({"repository": "--upload-pack=touch /tmp/x"}, "repository", "an option"),
        ({"repository": "https://git.example/a --upload-pack=x"}, "repository", "an option after a space"),
        ({"repository": "ssh://-oProxyCommand=x/a"}, "repository", "a host that is an option"),
        ({"repository": "git@-oProxyCommand=x:a"}, "repository", "the same in the short form"),
        ({"repository": "git@git.example:--upload-pack=x"}, "repository", "a path that is an option"),
        ({"repository": "ext::sh -c x"}, "repository", "a helper that runs commands"),
        ({"repository": "fd::17"}, "repository", "another helper"),
        ({"repository": "https://me:secret@git.example/a"}, "repository", "a password"),
        ({"repository": "me:secret@git.example:a"}, "repository", "a password in the short form"),
        ({"repository": "/etc"}, "repository", "a path, for a user"),
        ({"repository": "file:///etc"}, "repository", "a path as a URL"),
        ({"repository": "FILE:///etc"}, "repository", "the same in capitals"),
        ({"repository": "https://git.example/a\nb"}, "repository", "a line break"),
        ({"base": "--force"}, "base", "an option"),
        ({"base": "a..b"}, "base", "a range"),
        ({"base": "a b"}, "base", "a space"),
        ({"base": "refs/heads/a.lock"}, "base", "git forbids it"),
        ({"base": "x" * 251}, "base", "too long"),
        ({"model": "a model"}, "model", "no name"),
        ({"title": "x" * 201}, "title", "too long"),
        ({"title": "a\nb"}, "title", "two lines"),
        ({"budget": Budget(money_usd=-1)}, "budget.money_usd", "less than nothing"),
        ({"budget": Budget(wall_seconds=float("nan"))}, "budget.wall_seconds", "not a number"),
        ({"budget": Budget(steps=-5)}, "budget.steps", "less than nothing"),
        ({"queue": "GPU pool"}, "queue", "a space and capitals"),
        ({"queue": ""}, "queue", "none"),
        ({"labels": ("arm64", "")}, "labels", "an empty one"),
        ({"labels": tuple("abcdefghi")}, "labels", "too many"),
        ({"priority": 11}, "priority", "too high"),
    ],
)
def test_bad_tasks_are_refused_with_the_field(change: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(Problem) as refused:
        checks.submit(Submit(**{**GOOD, **change}), is_owner=False)
    assert (refused.value.status, refused.value.field) == (422, field), why
    assert "secret" not in refused.value.error


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n"])
def test_a_text_is_kept_with_one_kind_of_line_end(ends: str) -> None:
    kept = checks.submit(Submit(**{**GOOD, "prompt": f"one{ends}two{ends}{ends}"}), is_owner=False)
    assert kept.prompt == "one\ntwo\n\n"


def test_the_refusal_of_a_long_prompt_says_how_long_it_may_be() -> None:
    with pytest.raises(Problem, match="100,000"):
        checks.text("x" * 100_001, "prompt")


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("https://token@git.example/a", "https://git.example/a"),
        ("HTTPS://token@git.example/a", "HTTPS://git.example/a"),
        ("https://git.example/a@b", "https://git.example/a@b"),
        ("ssh://git@git.example/a", "ssh://git@git.example/a"),
        ("git@git.example:a", "git@git.example:a"),
    ],
)
def test_a_user_name_that_may_be_a_token_is_not_kept(url: str, without: str) -> None:
    assert checks.without_user(url) == without


@pytest.mark.parametrize("host", ["", "-x", "a b", "https://a", "a/b", "a:99999"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(Problem) as refused:
        checks.host(host)
    assert refused.value.field == "host"


def test_attempts_are_counted_by_peer_and_minute() -> None:
    clock = [0.0]
    limiter = Limiter(2, now=lambda: clock[0])
    assert [limiter.take("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limiter.take("192.0.2.2"), "another peer has attempts of its own"
    clock[0] = WINDOW_SECONDS
    assert limiter.take("192.0.2.1"), "the next minute"


def test_one_network_of_ipv6_is_one_peer() -> None:
    limiter = Limiter(1, now=lambda: 0.0)
    assert limiter.take("2001:db8::1")
    assert not limiter.take("2001:db8::2")
    assert limiter.take("2001:db8:0:1::1")


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        ("https://errand.example", "errand.example", True),
        ("http://127.0.0.1:8420", "127.0.0.1:8420", True),
        ("https://evil.example", "errand.example", False),
        ("null", "errand.example", False),
        ("", "errand.example", False),
    ],
)
def test_only_our_own_page_may_open_a_socket(origin: str, host: str, ours: bool) -> None:
    assert Config(public_url="https://errand.example/").is_own_origin(origin, host) is ours
