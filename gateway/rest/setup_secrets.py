"""The asker's secrets for set-ups: given here, sealed at once, and never shown again."""

from __future__ import annotations

import secrets
from datetime import datetime

from litestar import Router, delete, get, post
from msgspec import Struct

from gateway import checks
from gateway.errors import Problem
from gateway.rest.account import consumed
from gateway.tasks import Tasks
from gateway.users import Asker, Users
from protocol.repo import AskSealingKey, SealingKey
from protocol.routes import Service
from protocol.secret import Secret, bound_to, key_of
from protocol.user import RemoveSecret, SetSecret
from services.bus import Bus


class SecretBody(Struct, frozen=True):
    name: str
    """Of the variable that the set-up's script finds it in."""
    value: str
    repository: str = ""
    """The only one whose set-ups get it; empty: all that the asker's tasks work on."""

    def __repr__(self) -> str:
        return f"SecretBody({self.name})"  # the value is in no log line and no traceback


class SecretShown(Struct, frozen=True):
    name: str
    repository: str
    set_at: datetime


class Secrets(Struct, frozen=True):
    secrets: tuple[SecretShown, ...]


def secret_shown(secret: Secret) -> SecretShown:
    return SecretShown(secret.name, secret.repository, secret.set_at)


@get("/")
async def list_secrets(asker: Asker, users: Users) -> Secrets:
    """The asker's secrets by name; never a value."""
    user = users.get(asker.user)
    known = sorted(user.secrets.values(), key=lambda one: (one.name, one.repository)) if user else ()
    return Secrets(tuple(map(secret_shown, known)))


@post("/", status_code=201)
async def set_secret(asker: Asker, users: Users, tasks: Tasks, bus: Bus, data: SecretBody) -> SecretShown:
    """For set-ups of the asker's tasks, in the place of the one before. It is sealed here, and only the publisher can
    open it."""
    # The cryptography package costs 10 MiB, and this is asked a few times in an installation's life.
    from services.envelope import seal

    checks.secret_name(data.name)
    checks.secret_value(data.value)
    repository = await _normal(asker, tasks, data.repository)
    key = await bus.ask(Service.REPOS, AskSealingKey(), SealingKey)
    sealed = seal(key.public_key, bound_to(asker.user, data.name, repository), data.value)
    command = SetSecret(key=_key(), name=data.name, repository=repository, sealed=sealed)
    consumed(await users.command(asker.user, command), 409)
    user = users.get(asker.user)
    found = user.secrets.get(key_of(data.name, repository)) if user else None
    if found is None:
        raise Problem(409, f"{data.name} was removed meanwhile: set it again.")
    return secret_shown(found)


@delete("/{name:str}")
async def remove_secret(asker: Asker, users: Users, tasks: Tasks, name: str, repository: str = "") -> None:
    """Forget it. Of a repository that is no more, its address as it was given."""
    checks.secret_name(name)
    user = users.get(asker.user)
    if user and key_of(name, repository) not in user.secrets:
        repository = await _normal(asker, tasks, repository)
    consumed(await users.command(asker.user, RemoveSecret(key=_key(), name=name, repository=repository)), 404)


async def _normal(asker: Asker, tasks: Tasks, repository: str) -> str:
    """As tasks have it."""
    if not repository:
        return ""
    checks.repository(repository, is_owner=asker.is_owner)
    return await tasks.repository(asker, repository)


def _key() -> str:
    return f"secret-{secrets.token_hex(16)}"


ROUTER = Router("/api/secrets", route_handlers=[list_secrets, set_secret, remove_secret])
