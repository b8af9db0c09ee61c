"""Whole turns: the real loop and tools, the real SDK, the scripted server over HTTP, commands in a git repository."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from agents.context import fold
from agents.contract import DaySpent, Fenced, SandboxGone, TurnFailed, Verdict
from agents.loop import Settings
from agents.models.claude import Claude
from agents.models.scripted.server import serving
from protocol.journal import (
    AnyJournalEvent,
    AttemptStarted,
    CheckpointMade,
    ModelCall,
    Noticed,
    StepFinished,
    StepLost,
    StepStarted,
    ToolCall,
    ToolResult,
)
from protocol.rules import Rule, RuleAction
from protocol.task import Budget, Question
from tests.integration.agent_world import Killed, World

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[Claude]:
    async with serving() as server:
        claude = Claude(api_key="test", base_url=server.url, scripted=True)
        yield claude
        await claude.close()


def started(world: World) -> dict[int, ModelCall | ToolCall]:
    return {one.event.step: one.event.action for one in world.entries if isinstance(one.event, StepStarted)}


def finished(world: World) -> list[StepFinished]:
    return [one.event for one in world.entries if isinstance(one.event, StepFinished)]


def results(world: World) -> list[str]:
    return [one.result.text for one in finished(world) if isinstance(one.result, ToolResult)]


def notices(world: World) -> list[str]:
    return [one.event.text for one in world.entries if isinstance(one.event, Noticed)]


def assert_each_step_ended_once(world: World) -> None:
    steps = [one.event.step for one in world.entries if isinstance(one.event, StepStarted)]
    assert steps == sorted(set(steps))
    assert Counter(one.step for one in finished(world)) == Counter(steps)
    calls = Counter(action.id for action in started(world).values() if isinstance(action, ToolCall))
    assert set(calls.values()) == {1}, "each tool call is started, and so ended, once"


async def test_the_tour_reads_runs_and_adds_one_file(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")
    result = await world.run(model)
    content = (world.workspace / "ERRAND.md").read_text()
    assert "scripted, not Claude" in content
    assert "Files that git tracks: 2" in content
    assert "README.md: # A small project" in content
    assert world.git("status", "--short") == "A  ERRAND.md"
    assert "scripted, not Claude" in result.summary
    assert "scripted, not Claude" in result.commit_message
    assert result.usage.cost_usd > 0
    assert_each_step_ended_once(world)
    assert {channel for _, _, channel in world.previews} == {"text", "thinking", "input", "tool"}


async def test_a_follow_up_goes_on_in_the_same_conversation(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Put it into NOTES.md please.")
    first = await world.run(model)
    world.follow_up("And say hello.")
    second = await world.run(model)
    content = (world.workspace / "NOTES.md").read_text()
    assert content.startswith("# A tour")
    assert content.endswith("And say hello.\n")
    assert second.usage.cost_usd < first.usage.cost_usd * 2, "a turn counts only what it spent itself"
    assert_each_step_ended_once(world)


async def test_a_message_during_the_turn_is_read_at_the_next_model_call(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")

    async def speak_once(event: AnyJournalEvent) -> None:
        if isinstance(event, StepStarted) and event.step == 2:
            world.say("Mind the gap.")

    world.on_append = speak_once
    await world.run(model)
    read = [action.messages_read for action in started(world).values() if isinstance(action, ModelCall)]
    assert read[:3] == [(0,), (1,), ()]
    assert (world.workspace / "ERRAND.md").read_text().endswith("Mind the gap.\n")


async def test_a_message_while_the_model_finishes_is_not_left_unread(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")

    async def speak_late(event: AnyJournalEvent) -> None:
        if isinstance(event, StepStarted) and isinstance(event.action, ToolCall) and event.action.name == "finish":
            world.on_append = None
            world.say("One more thing.")

    world.on_append = speak_late
    await world.run(model)
    assert (world.workspace / "ERRAND.md").read_text().endswith("One more thing.\n")


async def test_a_turn_killed_after_any_journal_entry_comes_to_the_same_end(tmp_path: Path, model: Claude) -> None:
    whole = World(tmp_path / "whole", "Show me around.")
    await whole.run(model)
    content = (whole.workspace / "ERRAND.md").read_text().partition("Last commit")[0]
    for kill_after in range(2, len(whole.entries) + 1):
        world = World(tmp_path / str(kill_after), "Show me around.")
        world.kill_after = kill_after
        with pytest.raises(Killed):
            await world.run(model)
        world.kill_after = len(world.entries) + 2 + kill_after % 5 if kill_after % 3 == 0 else None
        try:
            await world.run(model)
        except Killed:
            await world.run(model)
        assert (world.workspace / "ERRAND.md").read_text().partition("Last commit")[0] == content, kill_after
        assert_each_step_ended_once(world)


async def test_the_model_is_told_what_a_crash_took(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=3")

    async def die(event: AnyJournalEvent) -> None:
        if isinstance(event, StepStarted) and event.step == 4:
            world.on_append = None
            with (world.workspace / "steps.txt").open("a") as file:
                file.write("half of what the second command would have done")
            raise Killed

    world.on_append = die
    with pytest.raises(Killed):
        await world.run(model)
    await world.run(model)
    lost = [one for one in finished(world) if isinstance(one.result, StepLost)]
    assert [one.step for one in lost] == [4]
    conversation = fold(world.entries, world.messages)
    told = str(conversation.request([], 1).messages)
    assert "The outcome of this call is unknown" in told
    assert "restored to what it was after this call: bash: echo 1" in told
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n3\n", "nothing ran twice on one workspace"
    assert_each_step_ended_once(world)


async def test_a_lost_model_call_costs_what_was_reserved(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: noop]")
    world.kill_after = 2
    with pytest.raises(Killed):
        await world.run(model)
    call = started(world)[1]
    assert isinstance(call, ModelCall)
    result = await world.run(model)
    assert result.usage.cost_usd > call.reserved_usd > 0


async def test_the_user_is_asked_once_although_the_runner_dies(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: ask]")

    async def die(event: AnyJournalEvent) -> None:
        if isinstance(event, StepStarted) and isinstance(event.action, ToolCall):
            world.on_append = None
            raise Killed

    world.on_append = die
    with pytest.raises(Killed):
        await world.run(model)
    world.answers = {"question_2": "green"}
    await world.run(model)
    assert "green" in (world.workspace / "ANSWER.md").read_text()
    assert [one.id for one in world.asked] == ["question_2"]
    assert_each_step_ended_once(world)


@pytest.mark.parametrize(
    ("fault", "lost", "said"),
    [
        ("429 x2", 2, "rate limit"),
        ("529", 1, "overloaded"),
        ("500 x3", 3, "failed (500)"),
        ("cut", 1, "broke"),
        ("error-in-200", 1, "overloaded"),
        ("cut @3", 1, "broke"),
    ],
)
async def test_a_passing_fault_is_waited_out_and_counted(
    tmp_path: Path, model: Claude, fault: str, lost: int, said: str
) -> None:
    world = World(tmp_path, f"[fault: {fault}] Show me around.")
    await world.run(model)
    assert len([one for one in finished(world) if isinstance(one.result, StepLost)]) == lost
    assert len(notices(world)) == len(world.clock.slept) == lost
    assert said in notices(world)[0]
    assert all(0 < seconds <= 5 for seconds in world.clock.slept)
    assert (world.workspace / "ERRAND.md").exists()
    assert_each_step_ended_once(world)


@pytest.mark.parametrize(
    ("fault", "said", "retry_after"),
    [
        ("401", "set ANTHROPIC_API_KEY", None),
        ("403", "may not do this", None),
        ("404", "choose another", None),
        ("400", "refused the request", None),
        ("spend-cap", "spend limit", None),
        ("slow-retry-after", "rate limit", 30.0),
        ("529 x9", "failed 5 times in a row", 60.0),
        ("refusal", "refused to go on", None),
        ("max_tokens] [fault: max_tokens @2] [fault: max_tokens @3", "limit of output tokens", None),
    ],
)
async def test_a_lasting_fault_ends_the_turn_with_a_reason(
    tmp_path: Path, model: Claude, fault: str, said: str, retry_after: float | None
) -> None:
    world = World(tmp_path, f"[fault: {fault}] Show {tmp_path} to me.")
    with pytest.raises(TurnFailed) as failed:
        await world.run(model)
    assert said in failed.value.reason
    assert failed.value.retry_after_seconds == retry_after
    assert set(started(world)) == {one.step for one in finished(world)}


@pytest.mark.parametrize("fault", ["pause_turn", "max_tokens"])
async def test_a_message_that_ends_early_is_gone_on_with(tmp_path: Path, model: Claude, fault: str) -> None:
    world = World(tmp_path, f"[fault: {fault}] Show me around.")
    await world.run(model)
    assert (world.workspace / "ERRAND.md").exists()


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(money_usd=0.0), "limit of $0"),
        (Budget(tokens=0), "limit of 0 tokens"),
        (Budget(steps=0), "limit of 0 steps"),
        (Budget(wall_seconds=0.0), "limit of 0 s"),
    ],
)
async def test_zero_means_zero(tmp_path: Path, model: Claude, budget: Budget, said: str) -> None:
    world = World(tmp_path, "Show me around.")
    with pytest.raises(TurnFailed, match="reached its limit") as failed:
        await world.run(model, budget=budget)
    assert said in failed.value.reason
    assert not started(world), "nothing was done"


async def test_at_a_limit_the_work_is_saved_and_a_message_goes_on(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=5")
    with pytest.raises(TurnFailed, match="limit of 6 steps: 6 steps spent"):
        await world.run(model, budget=Budget(steps=6))
    last = [one.event for one in world.entries if isinstance(one.event, CheckpointMade)][-1]
    assert last.step == 6
    world.follow_up("Go on.")
    await world.run(model)
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n3\n4\n5\n"
    assert_each_step_ended_once(world)


async def test_at_its_deadline_a_turn_stops_whatever_it_does_and_what_it_did_is_saved(
    tmp_path: Path, model: Claude
) -> None:
    world = World(tmp_path, "[scenario: slow] seconds=60")
    await model.load()
    with pytest.raises(TurnFailed, match="reached its deadline"):
        await world.run(model, Settings(seconds_left=4.0))
    assert_each_step_ended_once(world)
    *_, settled, saved = (one.event for one in world.entries)
    assert isinstance(settled, StepFinished)
    assert isinstance(settled.result, StepLost)
    assert isinstance(saved, CheckpointMade)
    assert saved.step == settled.step


async def test_at_a_limit_between_two_calls_of_a_message_the_rest_is_answered_later(
    tmp_path: Path, model: Claude
) -> None:
    world = World(tmp_path, "Show me around.")
    with pytest.raises(TurnFailed):
        await world.run(model, budget=Budget(steps=2))
    world.follow_up("Go on.")
    await world.run(model)
    assert any("Not run: the turn ended before it could run." in text for text in results(world))
    assert_each_step_ended_once(world)


async def test_a_fenced_append_ends_the_turn_as_fenced(tmp_path: Path, model: Claude) -> None:
    for number in range(1, 12):
        world = World(tmp_path / str(number), "Show me around.")

        async def refuse(event: AnyJournalEvent, world: World = world, number: int = number) -> None:
            if len(world.entries) > number:
                raise Fenced("another decision")

        world.on_append = refuse
        with pytest.raises(Fenced):
            await world.run(model)


async def test_a_dead_sandbox_ends_the_attempt_and_the_next_one_goes_on(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=2")
    real = world.exec

    async def die(*given, **named):
        world.exec = real
        raise SandboxGone("killed")

    world.exec = die
    with pytest.raises(SandboxGone):
        await world.run(model)
    assert "the sandbox ended" in str(finished(world)[-1].result)
    await world.run(model)
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n"
    assert_each_step_ended_once(world)


async def test_a_cancelled_turn_leaves_no_process_and_can_be_resumed(tmp_path: Path, model: Claude) -> None:
    fifo = tmp_path / "fifo"
    world = World(tmp_path, f"[scenario: slow] fifo={fifo}")
    os.mkfifo(fifo)
    async with anyio.create_task_group() as tasks:

        async def cancel(event: AnyJournalEvent) -> None:
            if isinstance(event, StepStarted) and isinstance(event.action, ToolCall):
                tasks.cancel_scope.cancel()

        world.on_append = cancel
        await world.run(model)
    assert isinstance(world.entries[-1].event, StepStarted)
    world.on_append = None
    world.follow_up("[scenario: noop]")
    fifo.unlink()
    fifo.touch()
    await world.run(model)
    assert_each_step_ended_once(world)


async def test_the_first_request_does_not_wait_for_the_sandbox(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")
    asked = anyio.Event()

    async def note(event: AnyJournalEvent) -> None:
        if isinstance(event, StepFinished):
            asked.set()

    async def ready() -> World:
        await asked.wait()
        return world

    world.on_append = note
    world.ready = ready
    await world.run(model)
    assert (world.workspace / "ERRAND.md").exists()


async def test_attempts_of_one_turn_are_counted_together(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")
    world.kill_after = 9
    with pytest.raises(Killed):
        await world.run(model)
    with pytest.raises(TurnFailed, match="steps spent"):
        await world.run(model, budget=Budget(steps=7))
    assert len([one for one in world.entries if isinstance(one.event, AttemptStarted)]) == 2


ASK_BEFORE_COMMANDS = Settings(rules=(Rule(action=RuleAction.ASK, tool="bash"),))
ASK_BEFORE_FINISH = Settings(rules=(Rule(action=RuleAction.ASK, tool="finish"),))
NO = Verdict(approved=False, reason="use make")


async def test_what_the_rules_ask_for_is_approved_before_it_is_started(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=2")

    async def nothing_is_started(question: Question) -> None:
        assert question.id == f"approval_{max(started(world)) + 1}"
        world.clock.seconds += 3600

    world.on_approve = nothing_is_started
    await world.run(model, ASK_BEFORE_COMMANDS)
    assert [one.input for one in world.asked] == [f"echo {n} >> steps.txt; echo step {n}" for n in (1, 2)]
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n"
    assert fold(world.entries, world.messages).spent(world.clock.now()).wall_seconds < 60, "the user's time is free"
    assert_each_step_ended_once(world)


async def test_what_is_denied_is_not_run_and_the_model_goes_on_with_the_reason(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=2")
    world.verdicts = {"approval_2": NO}
    await world.run(model, ASK_BEFORE_COMMANDS)
    assert (world.workspace / "steps.txt").read_text() == "2\n"
    assert "Not allowed: the user did not approve it: use make." in results(world)
    assert_each_step_ended_once(world)


async def test_what_a_rule_denies_is_asked_of_nobody(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=2")
    rule = Rule(action=RuleAction.DENY, tool="bash", pattern="echo 1*")
    await world.run(model, Settings(rules=(rule,)))
    assert (world.workspace / "steps.txt").read_text() == "2\n"
    assert not world.asked
    assert "Not allowed: a rule of the user's denies it." in results(world)


@pytest.mark.parametrize("verdict", [Verdict(approved=True), NO], ids=["approved", "denied"])
async def test_a_runner_that_dies_around_an_approval_asks_for_no_other(
    tmp_path: Path, model: Claude, verdict: Verdict
) -> None:
    """Killed while it waits, once the word is there, and with each entry after it."""
    whole = World(tmp_path / "whole", "[scenario: steps] steps=2")
    whole.verdicts = {"approval_2": verdict}
    await whole.run(model, ASK_BEFORE_COMMANDS)
    for kill_after in range(2, len(whole.entries) + 1):
        world = World(tmp_path / str(kill_after), "[scenario: steps] steps=2")
        world.verdicts = {"approval_2": verdict}

        async def die(question: Question, world: World = world) -> None:
            world.on_approve = None
            raise Killed

        world.on_approve = die
        for kill in (None, kill_after, None):
            world.kill_after = kill if kill is None or kill > len(world.entries) else None
            with suppress(Killed):
                await world.run(model, ASK_BEFORE_COMMANDS)
        assert world.asked[0].id == "approval_2"
        assert len({one.id for one in world.asked}) == len(world.asked)
        ran = [one for one in started(world).values() if isinstance(one, ToolCall) and one.name == "bash"]
        assert len({one.id for one in ran}) == len(ran), "no call is started twice"
        assert_each_step_ended_once(world)


async def test_before_the_turn_finishes_the_user_is_asked_also_where_the_model_just_stops(
    tmp_path: Path, model: Claude
) -> None:
    for scenario in ("noop", "chatty] chars=10 ["):
        world = World(tmp_path / scenario[:4], f"[scenario: {scenario}]")

        async def approve_the_second(question: Question, world: World = world) -> None:
            world.verdicts[question.id] = Verdict(approved=len(world.asked) > 1, reason="not yet")

        world.on_approve = approve_the_second
        await world.run(model, ASK_BEFORE_FINISH)
        assert [one.tool for one in world.asked] == ["finish", "finish"]
        told = str(fold(world.entries, world.messages).request([], 1).messages)
        assert told.count("the user did not approve it: not yet") == 1
        assert_each_step_ended_once(world)


async def test_a_budget_that_is_raised_meanwhile_lets_the_running_turn_go_on(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "[scenario: steps] steps=3")

    async def raise_it(event: AnyJournalEvent) -> None:
        if isinstance(event, StepStarted) and event.step == 4:
            world.budget = Budget(steps=100)

    world.on_append = raise_it
    await world.run(model, budget=Budget(steps=4))
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n3\n"


async def test_at_the_limit_of_the_day_the_turn_is_put_off_with_its_work_saved(tmp_path: Path, model: Claude) -> None:
    whole = World(tmp_path / "whole", "[scenario: steps] steps=3")
    cost = (await whole.run(model)).usage.cost_usd
    world = World(tmp_path / "short", "[scenario: steps] steps=3")
    with pytest.raises(DaySpent, match="next day begins"):
        await world.run(model, Settings(day_usd=0.0))
    assert not started(world), "nothing was done"
    with pytest.raises(DaySpent):
        await world.run(model, Settings(day_usd=cost / 2, max_tokens=1024))
    assert fold(world.entries, world.messages).usage.cost_usd <= cost / 2
    await world.run(model, Settings(day_usd=100.0))
    assert (world.workspace / "steps.txt").read_text() == "1\n2\n3\n"
    assert_each_step_ended_once(world)
