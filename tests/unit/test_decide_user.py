"""The scheduler's core over a user's log."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from protocol.evolve import PushSubscription, User, evolve_user
from protocol.ids import OWNER
from protocol.rules import RULES_LIMIT, Rule, RuleAction
from protocol.secret import SECRETS_LIMIT
from protocol.user import (
    AddDevice,
    AddHost,
    AddPushSubscription,
    AddUser,
    AnyUserCommand,
    CreateSignInCode,
    HostKind,
    RedeemSignInCode,
    RemoveDevice,
    RemovePushSubscription,
    RemoveSecret,
    RemoveUser,
    Role,
    SetDailyLimit,
    SetRules,
    SetSecret,
    SetSettings,
    Settings,
)
from services.scheduler.decide import answer_user
from tests.unit.desk import NOW


def user_after(*commands: AnyUserCommand, id_: str = OWNER) -> tuple[User, list[str]]:
    """The owner, or another user, after the commands, and how each ended."""
    user, ends = User(id=id_), []
    for sequence, command in enumerate(commands, 1):
        decision = answer_user(user, command, sequence, NOW)
        assert decision is not None
        assert decision.receipt is not None
        user = evolve_user(user, decision)
        ends.append(decision.receipt.reason or "consumed")
    return user, ends


OWNER_ADDED = AddUser(key="o", name="owner", role=Role.OWNER)
LATER = NOW + timedelta(hours=1)


def test_a_sign_in_code_works_once_and_not_after_its_end() -> None:
    user, ends = user_after(
        OWNER_ADDED,
        CreateSignInCode(key="c", code_hash="h", expires_at=LATER),
        RedeemSignInCode(key="r1", code_hash="h", device="d1", device_name="phone", token_hash="t1"),
        RedeemSignInCode(key="r2", code_hash="h", device="d2", device_name="thief", token_hash="t2"),
        CreateSignInCode(key="c2", code_hash="old", expires_at=NOW),
    )
    assert list(user.devices) == ["d1"]
    assert ends[:3] == ["consumed"] * 3
    assert "used already" in ends[3]
    assert "ended already" in ends[4]


def test_there_is_one_owner_and_a_name_is_given_once() -> None:
    _, ends = user_after(AddUser(key="a", name="eve"), OWNER_ADDED, AddUser(key="b", name="x", role=Role.OWNER))
    assert ends[0] == "There is exactly one owner."
    assert ends[1] == "consumed"
    assert "already" in ends[2]


def test_only_the_owner_gives_credentials() -> None:
    user = User(id="uother")
    added = answer_user(user, AddUser(key="a", name="eve"), 1, NOW)
    assert added is not None
    host = AddHost(key="h", host="git.example", kind=HostKind.TOKEN, sealed="…")
    refused = answer_user(evolve_user(user, added), host, 2, NOW)
    assert refused is not None
    assert refused.receipt is not None
    assert "Only the owner" in refused.receipt.reason


def test_a_credential_is_the_owners_alone_unless_it_is_shared() -> None:
    mine = AddHost(key="h", host="git.example", kind=HostKind.TOKEN, sealed="…")
    user, _ = user_after(OWNER_ADDED, mine, AddHost(key="i", host="b", kind=HostKind.TOKEN, sealed="…", shared=True))
    assert {host.host: host.shared for host in user.hosts.values()} == {"git.example": False, "b": True}
    user, _ = user_after(OWNER_ADDED, replace(mine, shared=True), replace(mine, key="j"))
    assert not user.hosts["git.example"].shared, "given again without the word, it is no longer"


def test_a_secret_has_one_value_for_all_repositories_and_others_for_some() -> None:
    for_all = SetSecret(key="a", name="TOKEN", sealed="1")
    for_one = SetSecret(key="b", name="TOKEN", sealed="2", repository="https://host/app")
    gone = RemoveSecret(key="d", name="TOKEN")
    again = replace(for_one, key="c", sealed="3")
    user, ends = user_after(OWNER_ADDED, for_all, for_one, again, gone, replace(gone, key="e"))
    assert [(one.repository, one.sealed, one.set_at) for one in user.secrets.values()] == [
        ("https://host/app", "3", NOW)
    ]
    assert ends[-1] == "There is no secret TOKEN for every repository: `errand secret ls` shows those that there are."


def test_secrets_have_a_limit_that_does_not_keep_one_from_being_changed() -> None:
    many = [SetSecret(key=f"k{n}", name=f"T{n}", sealed="x") for n in range(SECRETS_LIMIT + 1)]
    user, ends = user_after(OWNER_ADDED, *many, SetSecret(key="again", name="T0", sealed="y"))
    assert len(user.secrets) == SECRETS_LIMIT
    assert ends[-2:] == [f"There are {SECRETS_LIMIT} secrets already: remove one first.", "consumed"]


def test_a_removed_user_has_nothing_left_and_does_not_come_again() -> None:
    eve = AddUser(key="a", name="eve")
    device = AddDevice(key="d", device="d1", device_name="laptop", token_hash="t")
    secret = SetSecret(key="s", name="TOKEN", sealed="x")
    commands = (eve, device, secret, RemoveUser(key="r"), replace(eve, key="b"), replace(device, key="e"))
    user, ends = user_after(*commands, id_="ueve")
    assert (user.exists, user.devices, user.secrets) == (False, {}, {})
    assert ends[:4] == ["consumed"] * 4
    assert ["The owner removed this user" in end for end in ends[4:]] == [True, True]


def test_the_owner_stays() -> None:
    user, ends = user_after(OWNER_ADDED, RemoveUser(key="r"))
    assert user.exists
    assert ends[-1] == "The owner cannot be removed."


def test_devices_come_and_go_and_a_missing_one_is_said_to_be_missing() -> None:
    device = AddDevice(key="d", device="d1", device_name="laptop", token_hash="t")
    user, ends = user_after(OWNER_ADDED, device, RemoveDevice(key="x", device="d1"), RemoveDevice(key="y", device="d1"))
    assert user.devices == {}
    assert ends == ["consumed", "consumed", "consumed", "There is no such device."]


def test_a_device_has_one_subscription_which_goes_with_it() -> None:
    device = AddDevice(key="d", device="d1", device_name="phone", token_hash="t")
    user, ends = user_after(
        OWNER_ADDED,
        device,
        AddPushSubscription(key="1", device="d1", subscription="old", sealed="…"),
        AddPushSubscription(key="2", device="d1", subscription="new", sealed="…"),
        RemovePushSubscription(key="3", device="d1", subscription="old"),
        AddPushSubscription(key="4", device="d2", subscription="x", sealed="…"),
    )
    assert user.devices["d1"].push == PushSubscription(id="new", sealed="…")
    assert ends[4:] == ["This device is told nothing by push.", "There is no such device."]
    user, ends = user_after(
        OWNER_ADDED,
        device,
        AddPushSubscription(key="1", device="d1", subscription="new", sealed="…"),
        RemovePushSubscription(key="2", device="d1"),
        RemovePushSubscription(key="3", device="d1"),
    )
    assert user.devices["d1"].push is None
    assert ends[3:] == ["consumed", "This device is told nothing by push."]


def test_rules_and_settings_take_the_place_of_those_before_and_the_owner_sets_the_limit() -> None:
    rule = Rule(action=RuleAction.DENY, tool="bash", pattern="git push*")
    user, ends = user_after(
        OWNER_ADDED,
        SetRules(key="r", rules=(rule, rule)),
        SetRules(key="s", rules=(rule,)),
        SetRules(key="t", rules=(rule,) * (RULES_LIMIT + 1)),
        SetSettings(key="u", settings=Settings(model="m", daily_usd=2.0)),
        SetSettings(key="v", settings=Settings(time_zone="Europe/Berlin")),
        SetDailyLimit(key="w", daily_usd=0.0),
    )
    assert (user.rules, user.settings, user.daily_usd) == ((rule,), Settings(time_zone="Europe/Berlin"), 0.0)
    assert [number for number, end in enumerate(ends) if end != "consumed"] == [3]
    assert "limit is 100" in ends[3]
