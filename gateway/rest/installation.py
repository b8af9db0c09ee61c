"""What the owner does with the installation: credentials of git hosts, SQL, and whether all is well."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Annotated

import anyio
from litestar import Response, Router, delete, get, post
from litestar.params import Dependency
from msgspec import Struct

from gateway import checks
from gateway.config import Config
from gateway.dead import DeadLetters
from gateway.errors import of_refusal
from gateway.github import GithubDoor
from gateway.push.web_push import WebPush
from gateway.rest.account import consumed
from gateway.rest.identify import Owner
from gateway.users import Users
from protocol.evolve import Host, User
from protocol.history import RunSql, SqlAnswer
from protocol.ids import OWNER, token_hash
from protocol.query import AskHealth, AskInForce, Check, Health, InForce, SettingInForce
from protocol.repo import AskSealingKey, SealingKey
from protocol.routes import Service
from protocol.user import AddHost, HostKind, RemoveHost
from services.actor import Actor
from services.bus import Bus, Refused, Unavailable
from services.listening import PAGE, is_secure

SQL_SECONDS = 30.0
"""For one answer: the wait for the snapshot and the query itself."""
HEALTH_SECONDS = 2.0
This = Annotated[Actor, Dependency(skip_validation=True)]
"""The gateway itself."""
OTHERS = (Service.SCHEDULER, Service.RUNNER, Service.REPOS, Service.HISTORY)


class HostBody(Struct, frozen=True):
    host: str
    kind: HostKind
    secret: str
    """A token, or an OpenSSH private key."""
    username: str = ""
    shared: bool = False
    """For every user's tasks, not the owner's alone."""

    def __repr__(self) -> str:
        return f"HostBody({self.host})"  # the secret is in no log line and no traceback


class HostShown(Struct, frozen=True):
    host: str
    kind: str
    username: str
    shared: bool


class Hosts(Struct, frozen=True):
    hosts: tuple[HostShown, ...]


class RemoveHostBody(Struct, frozen=True):
    host: str


class SqlBody(Struct, frozen=True):
    sql: str
    at_least: int = 0
    """The last stream sequence the asker has seen; the answer has reached it."""
    limit: int = 1_000


class ServiceSettings(Struct, frozen=True):
    """What a process that runs was started with."""

    service: str
    process: str
    settings: tuple[SettingInForce, ...]


class Doctor(Struct, frozen=True):
    healthy: bool
    checks: tuple[Check, ...]
    settings: tuple[ServiceSettings, ...] = ()
    """Of one process of each service; one that does not answer is missing."""
    url: str = ""
    """Where people reach this server."""
    installation: str = ""
    """What `GET /api/installation` must answer at that address, if the way there leads here."""


class Installation(Struct, frozen=True):
    id: str
    """The same at all gateways of an installation, and at no other."""


def host_shown(host: Host) -> HostShown:
    return HostShown(host.host, host.kind, host.username, host.shared)


@get("/hosts")
async def list_hosts(owner: Owner, users: Users) -> Hosts:
    """The git hosts that there is a credential for; never the credential."""
    user = users.get(owner.user)
    return Hosts(tuple(host_shown(host) for host in user.hosts.values()) if user else ())


@post("/hosts", status_code=201)
async def add_host(owner: Owner, users: Users, bus: Bus, data: HostBody) -> HostShown:
    """Give the credential of a git host. It is sealed here, and only the publisher can open it."""
    # The cryptography package costs 10 MiB, and this is asked once in an installation's life.
    from services.envelope import seal

    host = checks.host(data.host)
    checks.secret(data.secret)
    if data.username:
        checks.name(data.username, "username")
    key = await bus.ask(Service.REPOS, AskSealingKey(), SealingKey)
    command = AddHost(
        key=f"host-{secrets.token_hex(16)}",
        host=host,
        kind=data.kind,
        sealed=seal(key.public_key, host, data.secret),
        username=data.username,
        shared=data.shared,
    )
    consumed(await users.command(owner.user, command), 409)
    return HostShown(host, data.kind, data.username, data.shared)


@delete("/hosts")
async def remove_host(owner: Owner, users: Users, data: RemoveHostBody) -> None:
    """Forget the credential of a git host."""
    command = RemoveHost(key=f"host-{secrets.token_hex(16)}", host=checks.host(data.host))
    consumed(await users.command(owner.user, command), 404)


@post("/sql", status_code=200)
async def run_sql(owner: Owner, bus: Bus, data: SqlBody) -> SqlAnswer:
    """One SELECT over everything that happened."""
    question = RunSql(sql=data.sql, at_least=data.at_least, limit=data.limit)
    try:
        return await bus.ask(Service.HISTORY, question, SqlAnswer, timeout_seconds=SQL_SECONDS)
    except Refused as refused:
        raise of_refusal(refused, "sql") from None


@get("/health")
async def health(actor: This) -> Response[Health]:
    """For who keeps this process alive; needs no token."""
    now = actor.health()
    return Response(now, status_code=200 if now.healthy else 503)


@get("/installation")
async def installation(users: Users) -> Installation:
    """For who wants to know whether an address leads here; needs no token."""
    return Installation(id_of(users.get(OWNER)))


def id_of(owner: User | None) -> str:
    """Of the moment in which the owner was made: it is in the log, so that every gateway knows it."""
    return token_hash(f"installation of {owner.added_at.isoformat()}")[:16] if owner and owner.added_at else ""


@get("/doctor")
async def doctor(
    owner: Owner, actor: This, bus: Bus, users: Users, github: GithubDoor, web_push: WebPush, config: Config
) -> Doctor:
    """The health of every service, the settings that hold there, and what only the gateway knows."""
    found = {Service.GATEWAY: actor.health()}
    in_force: dict[Service, InForce] = {}

    async def ask(service: Service) -> None:
        try:
            found[service] = await bus.ask(service, AskHealth(), Health, timeout_seconds=HEALTH_SECONDS)
        except (Unavailable, Refused) as error:
            found[service] = Health(healthy=False, service=service.value, detail=str(error))

    async def ask_in_force(service: Service) -> None:
        with suppress(Unavailable, Refused):
            in_force[service] = await bus.ask(service, AskInForce(), InForce, timeout_seconds=HEALTH_SECONDS)

    async with anyio.create_task_group() as group:
        for service in OTHERS:
            group.start_soon(ask, service)
        for service in (Service.GATEWAY, *OTHERS):
            group.start_soon(ask_in_force, service)
    services = (check_of(found[service]) for service in (Service.GATEWAY, *OTHERS))
    told_by = [in_force[service] for service in (Service.GATEWAY, *OTHERS) if service in in_force]
    told = sum(device.push is not None for user in users for device in user.devices.values())
    notifications = check_of_push(web_push.problem(), told, secure=is_secure(config.url))
    looked_at = (check for one in told_by for check in one.checks)
    checks = (*services, *looked_at, await github.check(), notifications, await DeadLetters(bus).check())
    return Doctor(
        healthy=all(check.status != "fail" for check in checks),
        checks=checks,
        settings=tuple(ServiceSettings(one.service, one.process, one.settings) for one in told_by),
        url=config.url,
        installation=id_of(users.get(OWNER)),
    )


def check_of(health: Health) -> Check:
    status = "fail" if not health.healthy else "warn" if health.notices else "ok"
    text = ". ".join(filter(None, (health.detail, *health.notices)))
    return Check(health.service, status, text or "works")


def check_of_push(problem: str, told: int, *, secure: bool) -> Check:
    """`told` devices wish to be told."""
    if not secure:
        return Check("notifications", "warn", f"none: browsers take them from HTTPS alone ({PAGE})")
    count = f"{told} device{'' if told == 1 else 's'} with notifications on"
    return Check("notifications", "warn" if problem else "ok", f"{count}. {problem}" if problem else count)


ROUTER = Router("/api", route_handlers=[list_hosts, add_host, remove_host, run_sql, health, installation, doctor])
