"""Signing in, users and their devices."""

from __future__ import annotations

import secrets
from datetime import datetime

from litestar import Request, Router, delete, get, post
from msgspec import Struct
from msgspec.structs import replace

from gateway import checks
from gateway.errors import Problem
from gateway.notices import Notices
from gateway.rest.identify import Owner
from gateway.sign_in import Door, SignedInDevice, SignInLink
from gateway.tasks import Tasks
from gateway.users import Asker, Users
from protocol.evolve import User
from protocol.ids import user_id
from protocol.task import Receipt, ReceiptStatus
from protocol.user import AddUser, RemoveDevice, RemoveUser


class SignInBody(Struct, frozen=True):
    code: str
    device_name: str


class AddUserBody(Struct, frozen=True):
    name: str


class LinkBody(Struct, frozen=True):
    user: str = ""
    """Whose link; empty means the asker's own. Another user's is the owner's to make."""
    qr: bool = False
    """Whether to draw it as a QR code too."""


class DeviceShown(Struct, frozen=True):
    id: str
    name: str
    added_at: datetime
    push: bool = False
    """Whether it is told of what happens while its page is closed."""


class UserShown(Struct, frozen=True):
    id: str
    name: str
    role: str
    added_at: datetime | None
    devices: tuple[DeviceShown, ...]
    github: str = ""
    """The login of the GitHub account that is the user's."""


class UsersShown(Struct, frozen=True):
    users: tuple[UserShown, ...]


class Me(Struct, frozen=True):
    user: str
    name: str
    role: str
    device: str
    """The id of the device that asks."""
    devices: tuple[DeviceShown, ...]
    notices: tuple[str, ...]
    """Sentences to show on every screen."""
    github: str = ""
    """The login of the GitHub account with which the asker's branches are pushed."""
    models: tuple[str, ...] = ()
    """Names to offer for a task, the default first; another one that the API knows is taken too."""
    model: str = ""
    """The asker's own default; empty means the first of `models`."""


def shown(user: User) -> UserShown:
    return UserShown(user.id, user.name, user.role, user.added_at, devices_of(user), github_of(user))


def github_of(user: User | None) -> str:
    return user.github.login if user and user.github else ""


def devices_of(user: User | None) -> tuple[DeviceShown, ...]:
    devices = user.devices.values() if user else ()
    return tuple(DeviceShown(device.id, device.name, device.added_at, device.push is not None) for device in devices)


def consumed(receipt: Receipt, status: int) -> None:
    """Raises Problem for a rejection."""
    if receipt.status is not ReceiptStatus.CONSUMED:
        raise Problem(status, receipt.reason)


@post("/sign-in", status_code=201)
async def sign_in(request: Request, door: Door, data: SignInBody) -> SignedInDevice:
    """Exchange a one-time code for this device's token."""
    peer = request.client.host if request.client else ""
    return await door.exchange(data.code, data.device_name, peer)


@get("/me")
async def me(asker: Asker, users: Users, notices: Notices) -> Me:
    """Who asks, where they are signed in, and what to show on every screen."""
    user = users.get(asker.user)
    current = await notices.current()
    return Me(
        *(asker.user, asker.name, asker.role, asker.device),
        *(devices_of(user), current, github_of(user), notices.models, user.settings.model if user else ""),
    )


@post("/users", status_code=201)
async def add_user(owner: Owner, users: Users, door: Door, data: AddUserBody) -> SignInLink:
    """A further user, with the link that signs the first device in."""
    checks.name(data.name, "name")
    name = data.name.strip()
    user = user_id(name)
    consumed(await users.command(user, AddUser(key=f"add-{secrets.token_hex(16)}", name=name)), 409)
    return await door.link(user)


@delete("/users/{user:str}")
async def remove_user(owner: Owner, users: Users, tasks: Tasks, user: str) -> None:
    """Sign a user out everywhere, for good, and stop the tasks that are open. They stay in the history."""
    known = users.get(user)
    if known is None:
        raise Problem(404, "There is no such user.")
    # Once more for one that is removed: the tasks may still have to be stopped.
    if known.exists:
        consumed(await users.command(user, RemoveUser(key="remove")), 409)
    await tasks.cancel_all(Asker(user, owner.device, known.name, known.role), "The owner removed this user.")


@get("/users")
async def list_users(owner: Owner, users: Users) -> UsersShown:
    """Everybody who has access, with their devices."""
    return UsersShown(tuple(shown(user) for user in users if user.exists))


@post("/sign-in-codes", status_code=201)
async def make_link(asker: Asker, users: Users, door: Door, data: LinkBody) -> SignInLink:
    """A link that signs one more device in."""
    user = data.user or asker.user
    if user != asker.user and not asker.is_owner:
        raise Problem(403, "Only the owner makes links for others.", "user")
    if users.get(user) is None:
        raise Problem(404, "There is no such user.", "user")
    made = await door.link(user)
    return replace(made, qr=picture(made.link)) if data.qr else made


def picture(link: str) -> str:
    """The link as a QR code: a `data:` URL of an SVG."""
    import segno  # asked for once in a while; it would stay in memory

    return segno.make(link, error="l").svg_data_uri(border=0, scale=4)


@delete("/devices/{device:str}")
async def remove_device(asker: Asker, users: Users, device: str) -> None:
    """Sign a device out, at once: one's own, or for the owner anybody's."""
    whose = [user for user in users if device in user.devices]
    if not whose or (whose[0].id != asker.user and not asker.is_owner):
        raise Problem(404, "There is no such device.")
    command = RemoveDevice(key=f"remove-{secrets.token_hex(16)}", device=device)
    consumed(await users.command(whose[0].id, command), 409)


ROUTER = Router("/api", route_handlers=[sign_in, me, add_user, remove_user, list_users, make_link, remove_device])
