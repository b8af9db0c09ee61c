"""Signing in with GitHub and pull requests: the parts that decide, and what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import ticket
from gateway.admission import admit
from gateway.errors import Problem
from protocol.evolve import Github as Account
from protocol.evolve import User, evolve_user
from protocol.ids import OWNER, token_hash
from protocol.repo import PullRequestWish
from protocol.task import Published, PullRequest, ReceiptStatus
from protocol.user import ForgetGithub, Role, RotateGithubTokens, SignInByGithub, UserCommand
from services.github import GithubConfig, Identity, Tokens
from services.repos.address import parse
from services.repos.cache import short_name
from services.repos.hosts import description
from services.repos.hosts.github import Github
from services.scheduler.decide import answer_user

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = ticket.make_key("secret")
CONFIG = GithubConfig(github_users=" Alice, bob ,,carol", github_owner="Olivia")


# Where GitHub is


@pytest.mark.parametrize(
    ("url", "api_url", "host", "api"),
    [
        ("https://github.com", "", "github.com", "https://api.github.com"),
        ("https://github.com/", "", "github.com", "https://api.github.com"),
        ("https://GitHub.Example.org", "", "github.example.org", "https://GitHub.Example.org/api/v3"),
        ("https://git.lan:8443", "https://api.lan/x/", "git.lan:8443", "https://api.lan/x"),
        ("https://git.lan:443", "", "git.lan", "https://git.lan:443/api/v3"),
        ("http://127.0.0.1", "", "127.0.0.1:80", "http://127.0.0.1/api/v3"),
    ],
)
def test_the_host_is_as_a_repositorys_address_has_it(url: str, api_url: str, host: str, api: str) -> None:
    config = GithubConfig(github_url=url, github_api_url=api_url)
    assert (config.host, config.api_url) == (host, api)
    assert parse(f"{url.rstrip('/')}/o/n").host == host


def test_the_list_knows_no_case_and_no_empty_login() -> None:
    assert CONFIG.logins == {"alice", "bob", "carol", "olivia"}
    assert GithubConfig().logins == frozenset()


def test_tokens_show_themselves_to_nobody() -> None:
    assert "ghu_" not in repr(Tokens("ghu_x", "ghr_y")) + str([Tokens("ghu_x")])


# The ticket


def test_a_ticket_is_read_until_it_ends_and_only_with_its_key() -> None:
    issued = ticket.issue(KEY, "ab" * 16, NOW)
    assert ticket.read(KEY, issued.cookie, NOW + timedelta(minutes=9)) == issued
    assert ticket.read(KEY, issued.cookie, NOW + timedelta(minutes=10)) is None
    assert ticket.read(ticket.make_key("other"), issued.cookie, NOW) is None
    assert len({issued.state, issued.verifier, issued.name, issued.cookie.split(".")[2]}) == 4
    assert len(issued.verifier) == 43


@given(st.text(), st.integers(0, 200))
def test_a_changed_cookie_is_no_ticket(text: str, place: int) -> None:
    cookie = ticket.issue(KEY, "ab" * 16, NOW).cookie
    changed = cookie[:place] + text + cookie[place + 1 :]
    assert changed == cookie or ticket.read(KEY, changed, NOW) is None
    assert ticket.read(KEY, text, NOW) is None


# Who may come in


def bound(user: str, account: int, login: str, listed: str, host: str = "github.com") -> User:
    return User(
        id=user, added_at=NOW, github=Account(host=host, account=account, login=login, listed=listed, sealed="s")
    )


@pytest.mark.parametrize(
    ("account", "login", "users", "listed"),
    [
        pytest.param(1, "ALICE", [], "alice", id="listed"),
        pytest.param(1, "alice2", [bound("u1", 1, "alice", "alice")], "alice", id="renamed since it was bound"),
        pytest.param(1, "alice", [bound("u9", 7, "alice", "alice", "git.lan")], "alice", id="bound at another GitHub"),
        pytest.param(2, "bob", [bound("u1", 1, "alice", "alice")], "bob", id="another one is bound"),
        pytest.param(1, "bob", [bound("u1", 1, "alice", "alice")], "alice", id="renamed to another entry"),
    ],
)
def test_an_account_is_admitted_by_its_first_entry(account: int, login: str, users: list[User], listed: str) -> None:
    admitted = admit(Identity(account, login), CONFIG, users)
    assert admitted.listed == listed
    assert admitted.user == admit(Identity(account, "alice"), CONFIG, []).user, "the number alone makes the user"
    assert admitted.user != OWNER


@pytest.mark.parametrize(
    ("account", "login", "users", "words"),
    [
        pytest.param(1, "mallory", [], "may not sign in", id="not listed"),
        pytest.param(1, "alice", [bound("u7", 7, "alice9", "alice")], "another GitHub account", id="taken over"),
        pytest.param(1, "alice", [bound(OWNER, 1, "zoe", "zoe")], "", id="the former owner's account, listed"),
        pytest.param(9, "olivia", [bound(OWNER, 1, "olivia", "olivia")], "another GitHub account", id="the owner's"),
        pytest.param(1, "dan2", [bound("u1", 1, "dan", "dan")], "may not sign in", id="off the list, and renamed"),
    ],
)
def test_who_is_not_meant_stays_out(account: int, login: str, users: list[User], words: str) -> None:
    if not words:
        assert admit(Identity(account, login), CONFIG, users).user != OWNER
        return
    with pytest.raises(Problem, match=words) as refused:
        admit(Identity(account, login), CONFIG, users)
    assert refused.value.status == 403


def test_the_owners_login_is_the_owner_in_any_case() -> None:
    assert admit(Identity(3, "OLIVIA"), CONFIG, []).user == OWNER
    with pytest.raises(Problem):
        admit(Identity(3, ""), GithubConfig(), [])


# The user's log


def sign_in(account: int = 1, sealed: str = "s1", key: str = "k1") -> SignInByGithub:
    return SignInByGithub(
        key=key,
        host="github.com",
        account=account,
        login="alice",
        listed="alice",
        sealed=sealed,
        code_hash=f"c-{key}",
        expires_at=NOW + timedelta(minutes=10),
    )


def after(user: User, *commands: UserCommand) -> tuple[User, list[str]]:
    """The user, and what each command was refused with, empty where it was not."""
    reasons = []
    for number, command in enumerate(commands, user.answered + 1):
        decision = answer_user(user, command, number, NOW)  # type: ignore[arg-type]
        assert decision is not None
        assert decision.receipt is not None
        reasons.append("" if decision.receipt.status is ReceiptStatus.CONSUMED else decision.receipt.reason)
        user = evolve_user(user, decision)
    return user, reasons


def test_the_first_sign_in_makes_the_user_with_one_code() -> None:
    user, reasons = after(User(id="u1"), sign_in())
    assert reasons == [""]
    assert (user.name, user.role, list(user.codes)) == ("alice", Role.USER, ["c-k1"])
    assert user.github is not None
    assert user.github.sealed == "s1"


def test_no_other_account_becomes_a_bound_user_until_it_is_forgotten() -> None:
    user, reasons = after(User(id="u1"), sign_in(), sign_in(2, key="k2"), ForgetGithub(key="f"), sign_in(2, key="k3"))
    assert [bool(reason) for reason in reasons] == [False, True, False, False]
    assert user.github is not None
    assert user.github.account == 2


def test_the_owner_is_not_made_by_a_sign_in() -> None:
    _, reasons = after(User(id=OWNER), sign_in())
    assert reasons == ["There is no owner yet: start the server first."]


def test_tokens_replace_those_that_they_came_from_and_no_others() -> None:
    rotate = [
        RotateGithubTokens(key=f"r{number}", sealed=f"s{number + 1}", replaces=token_hash(f"s{number}"))
        for number in (1, 2)
    ]
    stale = RotateGithubTokens(key="stale", sealed="old", replaces=token_hash("s1"))
    user, reasons = after(User(id="u1"), sign_in(), *rotate, stale)
    assert [bool(reason) for reason in reasons] == [False, False, False, True]
    assert user.github is not None
    assert user.github.sealed == "s3"


def test_a_user_without_an_account_has_no_tokens_to_replace() -> None:
    user, _ = after(User(id="u1"), sign_in(), ForgetGithub(key="f"))
    _, reasons = after(user, RotateGithubTokens(key="r", sealed="s2", replaces=token_hash("s1")), ForgetGithub(key="g"))
    assert all(reasons)


# Copies


def test_what_a_user_reads_with_an_own_account_is_copied_apart() -> None:
    address = parse("https://github.com/o/n")
    names = {
        short_name(msgspec.structs.replace(address, private_to=user, for_owner=owner))
        for user, owner in (("", False), ("", True), ("u1", False), ("u2", False))
    }
    assert len(names) == 4


# Pull requests


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://github.com/o/n", True),
        ("https://github.com/o/n.git", True),
        ("git@github.com:o/n.git", True),
        ("ssh://git@github.com/o/n", True),
        ("https://github.com/o/n/tree/main", False),
        ("https://github.com/o", False),
        ("https://gitlab.com/o/n", False),
        ("https://github.com:8443/o/n", False),
        ("https://github.com.evil.example/o/n", False),
    ],
)
def test_a_repository_at_github_is_known_by_its_host_and_shape(url: str, known: bool) -> None:
    assert Github(GithubConfig(), "").has(parse(url)) is known


WISH = PullRequestWish(title="Mend it", summary="It works.", model="claude-x")


@pytest.mark.parametrize(
    ("given", "unfinished", "shown"),
    [
        ("Mend it", False, "Mend it"),
        ("Mend\n it ", False, "Mend it"),
        ("", False, "Work by Errand"),
        ("Unfinished: Mend it", True, "Unfinished: Mend it"),
        ("x" * 300, True, "Unfinished: " + "x" * 187 + "…"),
    ],
)
def test_a_title_is_one_line_and_says_what_is_unfinished(given: str, unfinished: bool, shown: str) -> None:
    assert description.title(PullRequestWish(title=given, summary="", unfinished=unfinished)) == shown


def test_a_title_is_changed_only_from_unfinished_to_done() -> None:
    done, undone = WISH, msgspec.structs.replace(WISH, unfinished=True)
    assert description.newer_title("Unfinished: Mend it", done) == "Mend it"
    assert description.newer_title("Unfinished: Mend it", undone) == "Unfinished: Mend it"
    assert description.newer_title("What I call it", done) == "What I call it"


@given(st.text(), st.text(), st.text())
def test_only_our_part_of_a_text_is_changed_whatever_a_model_writes(before: str, summary: str, behind: str) -> None:
    ours = description.body(msgspec.structs.replace(WISH, summary=summary), "https://e/#/task/t1")
    newer = description.body(WISH, "https://e/#/task/t1")
    assert ours.count("<!--") == 2
    assert description.newer_body(ours, newer) == newer
    if description.BEGIN not in before:
        assert description.newer_body(f"{before}{ours}{behind}", newer) == f"{before}{newer}{behind}"


def test_a_text_that_people_made_their_own_stays() -> None:
    assert description.newer_body("All mine.", description.body(WISH, "")) == "All mine."


def test_a_text_says_who_made_it_and_links_only_where_there_is_an_address() -> None:
    assert "claude-x" in description.body(WISH, "")
    assert "](" not in description.body(WISH, "")
    scripted = description.body(msgspec.structs.replace(WISH, scripted=True), "https://e/#/task/t1")
    assert "scripted model, not Claude" in scripted
    assert "(https://e/#/task/t1)" in scripted


def test_a_long_summary_fits_into_what_github_takes() -> None:
    assert len(description.body(msgspec.structs.replace(WISH, summary="ä" * 100_000), "https://e")) < 65_536


def test_a_pull_request_stays_the_tasks_when_a_later_turn_could_not_reach_the_host() -> None:
    from protocol.evolve import _published

    before = Published(
        branch="b", commit="1", base_commit="0", pushed_to="x", pull_request=PullRequest(number=1, url="u")
    )
    now = Published(branch="b", commit="2", base_commit="0", pushed_to="x")
    kept = _published(before, now)
    assert kept is not None
    assert (kept.commit, kept.pull_request) == ("2", before.pull_request)
    assert _published(before, None) == before
    assert _published(None, now) == now
