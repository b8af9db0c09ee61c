"""Which server, whose token, where a watch stands, which repository: decided without any I/O but files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from protocol import journal, live, task
from protocol.task import Question
from services.cli import account, repository
from services.cli.commands.login import parse_link
from services.cli.commands.ls import in_order
from services.cli.cursor import Cursor, Verdict
from services.cli.failure import Failure
from services.cli.following import chosen
from tests.unit.test_cli_view import AT, TASK

STORED = account.Account(server="http://here:1", token="secret", seen=7)


@pytest.mark.parametrize(
    ("server", "environment", "expected"),
    [
        ("", {}, ("http://here:1", "secret", 7)),
        ("http://HERE:1/", {}, ("http://here:1", "secret", 7)),
        ("", {"ERRAND_TOKEN": "other"}, ("http://here:1", "other", 7)),
        ("", {"ERRAND_SERVER": "https://there", "ERRAND_TOKEN": "other"}, ("https://there", "other", 0)),
        ("there:2", {"ERRAND_TOKEN": "other"}, ("http://there:2", "other", 0)),
    ],
)
def test_the_account_is_that_of_the_server_asked_for(
    tmp_path: Path, server: str, environment: dict[str, str], expected: tuple[str, str, int]
) -> None:
    account.save(tmp_path, STORED)
    found = account.find(tmp_path, server, environment)
    assert (found.server, found.token, found.seen) == expected


def test_a_stored_token_is_sent_to_no_other_server(tmp_path: Path) -> None:
    account.save(tmp_path, STORED)
    with pytest.raises(Failure, match="There is no token for http://there"):
        account.find(tmp_path, "http://there", {})


def test_without_an_account_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="errand login LINK"):
        account.find(tmp_path, "", {})


def test_the_account_is_readable_by_its_user_alone(tmp_path: Path) -> None:
    account.save(tmp_path / "new", STORED)
    assert account.account_file(tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_highest_sequence_is_kept(tmp_path: Path) -> None:
    account.save(tmp_path, STORED)
    for sequence, kept in ((5, 7), (9, 9), (0, 9)):
        account.remember(tmp_path, STORED, sequence)
        known = account.stored(tmp_path)
        assert known is not None
        assert known.seen == kept


def test_a_broken_account_file_is_named(tmp_path: Path) -> None:
    account.account_file(tmp_path).write_text("{")
    with pytest.raises(Failure, match=r"client\.json cannot be read"):
        account.find(tmp_path, "", {})


@pytest.mark.parametrize("wrong", ["ftp://x", "http://", "http://x/#code=1", "http://u:p@x", "http://x:99999"])
def test_a_wrong_address_is_refused(wrong: str) -> None:
    with pytest.raises(Failure):
        account.server_url(wrong)


def test_a_link_is_a_server_and_a_code() -> None:
    assert parse_link(" https://Host:8420/#code=owner.x-Y_z\n") == ("https://host:8420", "owner.x-Y_z")


@pytest.mark.parametrize(
    "wrong", ["", "x", "https://host/", "https://host/#code=", "ssh://host/#code=a", "http://[::1/#code=a"]
)
def test_a_wrong_link_is_refused(wrong: str) -> None:
    with pytest.raises(Failure, match="not a sign-in link"):
        parse_link(wrong)


def decision(sequence: int, previous: int, journal_sequence: int = 0) -> live.DecisionSeen:
    decided = task.Decision(at=AT, state=task.TaskState.RUNNING, journal_sequence=journal_sequence)
    return live.DecisionSeen(task=TASK, sequence=sequence, previous=previous, decision=decided)


def entry(sequence: int, previous: int) -> live.JournalSeen:
    noticed = journal.JournalEntry(attempt=1, at=AT, event=journal.Noticed(text="x"))
    return live.JournalSeen(task=TASK, sequence=sequence, previous=previous, entry=noticed)


@pytest.mark.parametrize(
    ("at", "frame", "verdict", "reason"),
    [
        (0, decision(5, 0), Verdict.NEW, "the first event"),
        (5, decision(5, 0), Verdict.SEEN, "the same again"),
        (7, entry(6, 5), Verdict.SEEN, "an older one"),
        (5, entry(6, 5), Verdict.NEW, "the next of the journal"),
        (5, entry(8, 6), Verdict.GAP, "an event of the task in between"),
        (8, decision(9, 5), Verdict.NEW, "decisions follow decisions"),
        (5, decision(9, 7), Verdict.GAP, "a decision in between"),
        (5, decision(9, 5, journal_sequence=8), Verdict.GAP, "the attempt's last entries"),
        (8, decision(9, 5, journal_sequence=8), Verdict.NEW, "all of the attempt was seen"),
    ],
)
def test_the_cursor_sees_duplicates_and_gaps(
    at: int, frame: live.DecisionSeen | live.JournalSeen, verdict: Verdict, reason: str
) -> None:
    cursor = Cursor(at)
    assert cursor.take(frame) is verdict, reason
    assert cursor.sequence == (frame.sequence if verdict is Verdict.NEW else at)


@pytest.mark.parametrize(
    ("text", "answer"), [("1", "red"), ("2", "7"), ("3", "3"), ("7", "7"), ("0", "0"), ("blue", "blue"), ("²", "²")]
)
def test_a_number_picks_a_choice_unless_it_is_one(text: str, answer: str) -> None:
    assert chosen(Question(id="q", text="?", choices=("red", "7")), text) == answer


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("", "{top}"),
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://user:token@example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ("../other", "{parent}/other"),
    ],
)
def test_the_repository_is_the_one_around_without_its_secrets(tmp_path: Path, origin: str, expected: str) -> None:
    top = tmp_path / "repo"
    (top / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    git(top, "init", "-q")
    if origin:
        git(top, "remote", "add", "origin", origin)
    assert repository.choose(None, top / "deep") == expected.format(top=top, parent=tmp_path)


def test_a_named_repository_is_refused_with_a_secret_and_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert repository.choose("here", tmp_path) == str(tmp_path / "here")
    assert repository.choose("git@host:a/b.git", tmp_path) == "git@host:a/b.git"
    with pytest.raises(Failure, match="errand host add"):
        repository.choose("https://token@host/a.git", tmp_path)
    with pytest.raises(Failure, match="not in a git repository"):
        repository.choose(None, tmp_path)


def test_the_list_shows_first_who_needs_the_user() -> None:
    states = ["succeeded", "queued", "waiting", "failed", "running"]
    tasks = [
        live.TaskSummary(
            id=state, title="", state=task.TaskState(state), repository="", created_at="", updated_at=str(at)
        )
        for at, state in enumerate(states)
    ]
    assert [line.id for line in in_order(tasks)] == ["waiting", "running", "queued", "failed", "succeeded"]
