"""What a command leads to. Pure: the state, the command and the time come in, events or a rejection come out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import Task, User, evolve
from protocol.ids import OWNER, token_hash
from protocol.task import (
    MESSAGES_LIMIT,
    PROMPT_LIMIT_CHARS,
    AnswerQuestion,
    AnyTaskCommand,
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnd,
    AttemptEnded,
    CancelTask,
    Decision,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    MessageSent,
    ParkAttempt,
    QuestionAnswered,
    QuestionRaised,
    RaiseQuestion,
    Receipt,
    ReceiptStatus,
    SendMessage,
    SubmitTask,
    TaskDelayed,
    TaskQueued,
    TaskState,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
)
from protocol.user import (
    DEVICES_LIMIT,
    NAME_LIMIT_CHARS,
    AddDevice,
    AddHost,
    AddPushSubscription,
    AddUser,
    AnyUserCommand,
    AnyUserEvent,
    CreateSignInCode,
    DeviceAdded,
    DeviceRemoved,
    ForgetGithub,
    GithubForgotten,
    GithubLinked,
    GithubTokensRotated,
    HostAdded,
    HostRemoved,
    PushSubscriptionAdded,
    PushSubscriptionRemoved,
    RedeemSignInCode,
    RemoveDevice,
    RemoveHost,
    RemovePushSubscription,
    RemoveUser,
    Role,
    RotateGithubTokens,
    SignInByGithub,
    SignInCodeCreated,
    SignInCodeRedeemed,
    UserAdded,
    UserDecision,
    UserRemoved,
)

TITLE_CHARS = 80


class Limits(Struct, frozen=True, kw_only=True):
    """Numbers that decisions depend on."""

    attempts_per_turn: int = 5
    """A turn whose runner died, or that failed for a passing reason, is tried so often."""


class Rejected(Exception):
    """The command changes nothing; the reason goes into its receipt."""


def answer(task: Task, command: AnyTaskCommand, sequence: int, now: datetime, limits: Limits) -> Decision | None:
    """The decision on a command that the stream has at `sequence`; None when it has its receipt already."""
    if sequence <= task.answered or command.key in task.receipts:
        return None
    try:
        events, receipt = decide(task, command, now, limits), Receipt(key=command.key, status=ReceiptStatus.CONSUMED)
    except Rejected as rejection:
        events, receipt = (), Receipt(key=command.key, status=ReceiptStatus.REJECTED, reason=str(rejection))
    journal = command.journal_sequence if isinstance(command, FinishAttempt | FailAttempt | ParkAttempt) else 0
    decision = Decision(
        at=now,
        state=task.state,
        events=events,
        receipt=receipt,
        command_sequence=sequence,
        journal_sequence=journal if events else 0,
    )
    return with_state(task, decision)


def reject(task: Task, key: str, sequence: int, now: datetime, reason: str) -> Decision:
    """The receipt of a command that could not be handled at all."""
    receipt = Receipt(key=key, status=ReceiptStatus.REJECTED, reason=reason)
    return Decision(at=now, state=task.state, receipt=receipt, command_sequence=sequence)


def with_state(task: Task, decision: Decision) -> Decision:
    """`decision` naming the state it leads to."""
    return replace(decision, state=evolve(task, decision).state)


def decide(task: Task, command: AnyTaskCommand, now: datetime, limits: Limits) -> tuple[AnyTaskEvent, ...]:
    """The events that follow from a command. Raises Rejected."""
    if not isinstance(command, SubmitTask) and task.turn == 0:
        raise Rejected("There is no such task.")
    match command:
        case SubmitTask():
            return _submit(task, command)
        case SendMessage():
            return _message(task, command)
        case AnswerQuestion():
            return _answer_question(task, command)
        case CancelTask():
            return _cancel(task, command)
        case RaiseQuestion():
            return _raise_question(task, command)
        case FinishAttempt():
            return _finish(task, command)
        case FailAttempt():
            return _fail(task, command, now, limits)
        case ParkAttempt():
            return _park(task, command)
        case FireTimer():
            return _fire(task, command, now)
        case _:
            assert_never(command)


def _submit(task: Task, command: SubmitTask) -> tuple[AnyTaskEvent, ...]:
    if task.turn > 0:
        raise Rejected("This task was submitted before, by another command with the same idempotency key.")
    if not command.prompt.strip():
        raise Rejected("The prompt is empty: say what is to be done.")
    if len(command.prompt) > PROMPT_LIMIT_CHARS:
        raise Rejected(f"The prompt has {len(command.prompt)} characters; the limit is {PROMPT_LIMIT_CHARS}.")
    return (
        TaskSubmitted(
            prompt=command.prompt,
            repository=command.repository,
            base=command.base,
            model=command.model,
            budget=command.budget,
            title=command.title or title_of(command.prompt),
            queue=command.queue,
            pull_request=command.pull_request,
        ),
    )


def title_of(prompt: str) -> str:
    """The prompt's first line, cut at a word."""
    line = prompt.strip().splitlines()[0].strip()
    if len(line) <= TITLE_CHARS:
        return line
    return line[:TITLE_CHARS].rsplit(" ", 1)[0] + "…"


def _message(task: Task, command: SendMessage) -> tuple[AnyTaskEvent, ...]:
    if not command.text.strip():
        raise Rejected("The message is empty.")
    if len(command.text) > PROMPT_LIMIT_CHARS:
        raise Rejected(f"The message has {len(command.text)} characters; the limit is {PROMPT_LIMIT_CHARS}.")
    if task.messages >= MESSAGES_LIMIT:
        raise Rejected(f"This task has had {MESSAGES_LIMIT} messages: go on in a new task.")
    sent = MessageSent(message=task.messages + 1, text=command.text)
    return (sent,) if task.is_open else (sent, TurnOpened(turn=task.turn + 1))


def _raise_question(task: Task, command: RaiseQuestion) -> tuple[AnyTaskEvent, ...]:
    _must_hold(task, command.attempt)
    if task.question is not None:
        raise Rejected("Another question is open: one at a time.")
    return (QuestionRaised(question=command.question),)


def _answer_question(task: Task, command: AnswerQuestion) -> tuple[AnyTaskEvent, ...]:
    if task.question is None or task.question.id != command.question:
        raise Rejected("This question is not open any more: somebody answered it, or the turn ended.")
    if not command.text.strip():
        raise Rejected("The answer is empty.")
    answered = QuestionAnswered(question=command.question, text=command.text)
    return (answered,) if task.holder else (answered, TaskQueued(reason="The question was answered."))


def _cancel(task: Task, command: CancelTask) -> tuple[AnyTaskEvent, ...]:
    if not task.is_open:
        raise Rejected(f"The task has {task.state} already.")
    ended = TurnEnded(
        turn=task.turn,
        outcome=TaskState.CANCELLED,
        reason=command.reason or "Cancelled by the user.",
        device=command.device,
    )
    if task.holder is None:
        return (ended,)
    return AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.CANCELLED), ended


def _finish(task: Task, command: FinishAttempt) -> tuple[AnyTaskEvent, ...]:
    _must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.FINISHED, usage=command.usage)
    outcome = TurnEnded(
        turn=task.turn,
        outcome=TaskState.SUCCEEDED,
        summary=command.summary,
        published=command.published,
        usage=command.usage,
    )
    return ended, outcome, *_next_turn(task, command.messages_read)


def _next_turn(task: Task, messages_read: int) -> tuple[AnyTaskEvent, ...]:
    """The user spoke after the model's last call of the turn: that is not lost, it opens the next turn."""
    unread = task.messages > max(messages_read, task.messages_before)
    return (TurnOpened(turn=task.turn + 1),) if unread else ()


def _fail(task: Task, command: FailAttempt, now: datetime, limits: Limits) -> tuple[AnyTaskEvent, ...]:
    _must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.FAILED, reason=command.reason, usage=command.usage)
    if command.retry_after_seconds is not None and task.question is not None:
        return (ended,)  # the turn waits for the user all the same; the answer opens another attempt
    if command.retry_after_seconds is not None and task.turn_attempts + 1 < limits.attempts_per_turn:
        until = now + timedelta(seconds=max(0.0, command.retry_after_seconds))
        return ended, TaskDelayed(until=until, reason=command.reason)
    outcome = TurnEnded(
        turn=task.turn,
        outcome=TaskState.FAILED,
        reason=command.reason,
        published=command.published,
        usage=command.usage,
    )
    return ended, outcome, *_next_turn(task, command.messages_read)


def _park(task: Task, command: ParkAttempt) -> tuple[AnyTaskEvent, ...]:
    _must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.PARKED, usage=command.usage)
    if task.question is not None:
        return (ended,)
    return ended, TaskQueued(reason="The runner gave the attempt back.")


def _fire(task: Task, command: FireTimer, now: datetime) -> tuple[AnyTaskEvent, ...]:
    if task.state is not TaskState.DELAYED or task.delayed_until is None or command.due < task.delayed_until:
        raise Rejected("Nothing waits for this timer any more.")
    return (TaskQueued(reason="The delay is over."),)


def _must_hold(task: Task, attempt: int) -> None:
    if task.holder is None or task.holder.attempt != attempt:
        raise Rejected(f"Attempt {attempt} is over.")


def claim(task: Task, runner: str, request: str, now: datetime) -> Decision:
    """A runner gets the queued turn."""
    assert task.state is TaskState.QUEUED, task.state
    claimed = AttemptClaimed(attempt=task.attempt + 1, turn=task.turn, runner=runner, request=request)
    return with_state(task, Decision(at=now, state=task.state, events=(claimed,)))


def lose_lease(task: Task, now: datetime, limits: Limits) -> Decision:
    """The runner that holds the attempt was not heard of for longer than its lease."""
    assert task.holder is not None
    reason = "The runner was not heard of any more."
    ended = AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.LEASE_LOST, reason=reason)
    events: tuple[AnyTaskEvent, ...] = (ended,)
    if task.state is TaskState.RUNNING:
        if task.turn_attempts + 1 < limits.attempts_per_turn:
            events = ended, TaskQueued(reason="The runner was lost; another takes over from the last checkpoint.")
        else:
            reason = f"{limits.attempts_per_turn} runners were lost over this turn: see their log, then send a message."
            events = ended, TurnEnded(turn=task.turn, outcome=TaskState.FAILED, reason=reason)
    return with_state(task, Decision(at=now, state=task.state, events=events))


def answer_user(user: User, command: AnyUserCommand, sequence: int, now: datetime) -> UserDecision | None:
    """The decision on a command to a user's log; None when it has its receipt already."""
    if sequence <= user.answered or command.key in user.receipts:
        return None
    try:
        events, receipt = decide_user(user, command, now), Receipt(key=command.key, status=ReceiptStatus.CONSUMED)
    except Rejected as rejection:
        events, receipt = (), Receipt(key=command.key, status=ReceiptStatus.REJECTED, reason=str(rejection))
    return UserDecision(at=now, events=events, receipt=receipt, command_sequence=sequence)


def reject_user(key: str, sequence: int, now: datetime, reason: str) -> UserDecision:
    """The receipt of a command to a user's log that could not be handled at all."""
    receipt = Receipt(key=key, status=ReceiptStatus.REJECTED, reason=reason)
    return UserDecision(at=now, receipt=receipt, command_sequence=sequence)


def decide_user(user: User, command: AnyUserCommand, now: datetime) -> tuple[AnyUserEvent, ...]:
    """The events that follow from a command to a user's log. Raises Rejected."""
    if user.removed_at is not None:
        raise Rejected("The owner removed this user, whose tasks are kept: another one needs another name.")
    if not isinstance(command, AddUser | SignInByGithub) and not user.exists:
        raise Rejected("There is no such user.")
    match command:
        case AddUser():
            return _add_user(user, command)
        case RemoveUser():
            if user.role is Role.OWNER:
                raise Rejected("The owner cannot be removed.")
            return (UserRemoved(),)
        case CreateSignInCode():
            return (_make_code(command, now),)
        case RedeemSignInCode():
            end = user.codes.get(command.code_hash)
            if end is None or end <= now:
                raise Rejected("This sign-in link was used already or has expired: ask for a new one.")
            return SignInCodeRedeemed(code_hash=command.code_hash), _add_device(user, command)
        case AddDevice():
            return (_add_device(user, command),)
        case RemoveDevice():
            if command.device not in user.devices:
                raise Rejected("There is no such device.")
            return (DeviceRemoved(device=command.device),)
        case AddHost():
            if user.role is not Role.OWNER:
                raise Rejected("Only the owner gives credentials of git hosts.")
            return (
                HostAdded(
                    host=command.host,
                    kind=command.kind,
                    username=command.username,
                    sealed=command.sealed,
                    shared=command.shared,
                ),
            )
        case RemoveHost():
            if command.host not in user.hosts:
                raise Rejected(f"There is no credential for {command.host}.")
            return (HostRemoved(host=command.host),)
        case AddPushSubscription():
            if command.device not in user.devices:
                raise Rejected("There is no such device.")
            return (
                PushSubscriptionAdded(device=command.device, subscription=command.subscription, sealed=command.sealed),
            )
        case RemovePushSubscription():
            return _remove_push(user, command)
        case SignInByGithub():
            return _sign_in_by_github(user, command, now)
        case RotateGithubTokens():
            if user.github is None or token_hash(user.github.sealed) != command.replaces:
                raise Rejected("Other tokens have taken the place of these.")
            return (GithubTokensRotated(sealed=command.sealed),)
        case ForgetGithub():
            if user.github is None:
                raise Rejected("No GitHub account is bound to this user.")
            return (GithubForgotten(account=user.github.account),)
        case _:
            assert_never(command)


def _make_code(command: CreateSignInCode | SignInByGithub, now: datetime) -> SignInCodeCreated:
    if command.expires_at <= now:
        raise Rejected("The code would have ended already.")
    return SignInCodeCreated(code_hash=command.code_hash, expires_at=command.expires_at)


def _sign_in_by_github(user: User, command: SignInByGithub, now: datetime) -> tuple[AnyUserEvent, ...]:
    bound = user.github
    if bound is not None and (bound.host, bound.account) != (command.host, command.account):
        raise Rejected(
            f"This user is bound to another GitHub account, the one that was {bound.login}: forget that one first."
        )
    if not user.exists and user.id == OWNER:
        raise Rejected("There is no owner yet: start the server first.")
    added = () if user.exists else (UserAdded(name=command.login, role=Role.USER),)
    linked = GithubLinked(
        host=command.host,
        account=command.account,
        login=command.login,
        listed=command.listed,
        sealed=command.sealed,
    )
    return *added, linked, _make_code(command, now)


def _add_user(user: User, command: AddUser) -> tuple[AnyUserEvent, ...]:
    if user.exists:
        raise Rejected(f"There is a user named {user.name} already.")
    if not command.name.strip() or len(command.name) > NAME_LIMIT_CHARS:
        raise Rejected(f"A user's name has 1 to {NAME_LIMIT_CHARS} characters.")
    if (command.role is Role.OWNER) != (user.id == OWNER):
        raise Rejected("There is exactly one owner.")
    return (UserAdded(name=command.name, role=command.role),)


def _add_device(user: User, command: RedeemSignInCode | AddDevice) -> DeviceAdded:
    if len(user.devices) >= DEVICES_LIMIT and command.device not in user.devices:
        raise Rejected(f"{DEVICES_LIMIT} devices are signed in: remove one first.")
    return DeviceAdded(device=command.device, device_name=command.device_name, token_hash=command.token_hash)


def _remove_push(user: User, command: RemovePushSubscription) -> tuple[AnyUserEvent, ...]:
    device = user.devices.get(command.device)
    if device is None or device.push is None or command.subscription not in ("", device.push.id):
        raise Rejected("This device is told nothing by push.")
    return (PushSubscriptionRemoved(device=command.device),)
