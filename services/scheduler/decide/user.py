"""What a command to a user's log leads to. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from protocol.evolve import User
from protocol.ids import OWNER, token_hash
from protocol.secret import SECRETS_LIMIT, key_of
from protocol.task import (
    Receipt,
    ReceiptStatus,
)
from protocol.user import (
    BULK_LIMIT,
    DEVICES_LIMIT,
    NAME_LIMIT_CHARS,
    AddDevice,
    AddHost,
    AddPushSubscription,
    AddSchedule,
    AddUser,
    AnyUserCommand,
    AnyUserEvent,
    BeginBulk,
    BulkBegun,
    CreateSignInCode,
    DailyLimitSet,
    DeviceAdded,
    DeviceRemoved,
    EndRun,
    FireSchedule,
    ForgetGithub,
    GithubForgotten,
    GithubLinked,
    GithubTokensRotated,
    HostAdded,
    HostRemoved,
    PauseSchedule,
    PushSubscriptionAdded,
    PushSubscriptionRemoved,
    RedeemSignInCode,
    RemoveDevice,
    RemoveHost,
    RemovePushSubscription,
    RemoveSchedule,
    RemoveSecret,
    RemoveUser,
    ResumeSchedule,
    Role,
    RotateGithubTokens,
    RulesSet,
    SecretRemoved,
    SecretSet,
    SetDailyLimit,
    SetQueue,
    SetRules,
    SetSecret,
    SetSettings,
    SettingsSet,
    SignInByGithub,
    SignInCodeCreated,
    SignInCodeRedeemed,
    UserAdded,
    UserDecision,
    UserRemoved,
)
from services.scheduler.decide import schedules
from services.scheduler.decide.base import Rejected, must_be_rules
from services.scheduler.decide.queues import set_queue


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
        case SetSecret():
            return _set_secret(user, command)
        case RemoveSecret():
            return _remove_secret(user, command)
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
        case SetQueue():
            return set_queue(user, command)
        case SetRules():
            must_be_rules(command.rules)
            return (RulesSet(rules=command.rules),)
        case SetSettings():
            return (SettingsSet(settings=command.settings),)
        case SetDailyLimit():
            return (DailyLimitSet(daily_usd=command.daily_usd),)
        case BeginBulk():
            if not 1 <= len(command.tasks) <= BULK_LIMIT:
                raise Rejected(f"A bulk is over 1 to {BULK_LIMIT} tasks.")
            return (BulkBegun(bulk=command.key, action=command.action, tasks=command.tasks),)
        case AddSchedule():
            return schedules.add(user, command, now)
        case RemoveSchedule():
            return schedules.remove(user, command)
        case PauseSchedule():
            return schedules.pause(user, command)
        case ResumeSchedule():
            return schedules.resume(user, command, now)
        case FireSchedule():
            return schedules.fire(user, command, now)
        case EndRun():
            return schedules.end_run(user, command)
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


def _set_secret(user: User, command: SetSecret) -> tuple[AnyUserEvent, ...]:
    key = key_of(command.name, command.repository)
    if len(user.secrets) >= SECRETS_LIMIT and key not in user.secrets:
        raise Rejected(f"There are {SECRETS_LIMIT} secrets already: remove one first.")
    return (SecretSet(name=command.name, repository=command.repository, sealed=command.sealed),)


def _remove_secret(user: User, command: RemoveSecret) -> tuple[AnyUserEvent, ...]:
    if key_of(command.name, command.repository) not in user.secrets:
        whose = f"for {command.repository}" if command.repository else "for every repository"
        raise Rejected(f"There is no secret {command.name} {whose}: `errand secret ls` shows those that there are.")
    return (SecretRemoved(name=command.name, repository=command.repository),)


def _remove_push(user: User, command: RemovePushSubscription) -> tuple[AnyUserEvent, ...]:
    device = user.devices.get(command.device)
    if device is None or device.push is None or command.subscription not in ("", device.push.id):
        raise Rejected("This device is told nothing by push.")
    return (PushSubscriptionRemoved(device=command.device),)
