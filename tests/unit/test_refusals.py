"""What a user and the agent are told of a network that is not there."""

from __future__ import annotations

import pytest

from sandbox.contract import ExecResult
from sandbox.egress.policy import Egress, Refusal
from services.runner.refusals import CLOSED, NO_DNS, Refusals, tells_of_look_up, why_no_look_ups


@pytest.mark.parametrize(
    ("said", "program"),
    [
        ("curl: (6) Could not resolve host: example.com", "curl, and git"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "git"),
        ("E: Failed to fetch http://x  Temporary failure resolving 'mirror.example.org'", "apt"),
        ("wget: unable to resolve host address 'example.com'", "wget"),
        ("[Errno -3] Temporary failure in name resolution", "Python, and so pip"),
        ("npm error code EAI_AGAIN", "npm"),
        ("dial tcp: lookup example.com: no such host", "Go"),
        ("failed to lookup address information: Try again", "Rust"),
        ("java.net.UnknownHostException: example.com", "the JVM"),
    ],
)
def test_a_look_up_that_failed_is_told_once_with_the_setting_and_who_can_change_it(said: str, program: str) -> None:
    refusals = Refusals(None, why_no_look_ups("docker", Egress()))  # type: ignore[arg-type]
    told = [refusals.said_with(ExecResult(exit_code=6, output=said)).output for _ in range(2)]
    assert told == [f"{said}\n[network: {CLOSED}]\n", said], program
    assert CLOSED.endswith("the owner can allow hosts by ERRAND_SANDBOX_EGRESS")


@pytest.mark.parametrize(
    ("sandbox", "egress", "why"),
    [
        ("bubblewrap", Egress(), CLOSED),
        ("docker", Egress(words=("open.example.org",)), NO_DNS),
        ("unsandboxed", Egress(), ""),
    ],
)
def test_the_reason_is_that_of_the_sandbox(sandbox: str, egress: Egress, why: str) -> None:
    assert why_no_look_ups(sandbox, egress) == why


def test_other_words_are_no_look_up() -> None:
    for said in ("npm error ERESOLVE could not resolve", "sudo: unable to resolve host errand", "ok"):
        assert not tells_of_look_up(said)


def test_what_a_set_up_was_refused_is_not_told_with_the_agents_first_command() -> None:
    refusals = Refusals(None)  # type: ignore[arg-type]
    refusals.show(Refusal(host="a.example.com", port=443, reason="a"))
    refusals.add(Refusal(host="b.example.com", port=443, reason="b"))
    assert refusals.said_with(ExecResult(exit_code=0, output="x\n")).output == "x\n[network: b]\n"
