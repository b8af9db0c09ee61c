"""Whether and how this device is told of what happens while its page is closed."""

from __future__ import annotations

import secrets

from litestar import Request, Router, delete, get, post
from msgspec import Struct

from gateway.config import Config
from gateway.errors import Problem
from gateway.push.web_push import Subscription, Undelivered, Unusable, WebPush
from gateway.rest.account import consumed
from gateway.users import Asker, Users
from protocol.ids import token_hash
from protocol.user import AddPushSubscription, RemovePushSubscription

NO_HTTPS = (
    "Notifications need HTTPS: put a server that speaks TLS before Errand and set ERRAND_PUBLIC_URL (docs/reaching.md)."
)


class PushOffered(Struct, frozen=True):
    public_key: str
    """For `pushManager.subscribe({applicationServerKey})`, base64url; empty where nothing is offered."""
    available: bool
    reason: str = ""
    """Why not, and what to do about it."""
    subscribed: bool = False
    """Whether this device is told. A browser may hold on to a subscription that the server has dropped."""


@get("/push")
async def offer(asker: Asker, request: Request, config: Config, users: Users, web_push: WebPush) -> PushOffered:
    """Browsers give out subscriptions to secure pages alone."""
    if not config.is_secure(request.url.scheme, request.url.hostname or ""):
        return PushOffered("", False, NO_HTTPS)
    try:
        return PushOffered(await web_push.public_key(), True, subscribed=is_subscribed(users, asker))
    except OSError as error:
        return PushOffered("", False, unready(error))


def unready(error: OSError) -> str:
    return f"The keys of notifications can be neither read nor made ({error}): see ERRAND_PUSH_KEY_FILE."


@post("/push/subscriptions", status_code=201)
async def subscribe(asker: Asker, users: Users, web_push: WebPush, data: Subscription) -> None:
    """Tell this device. Another device with the same subscription was the same browser, and is told nothing more."""
    try:
        await web_push.check(data)
    except Unusable as error:
        raise Problem(422, str(error), "endpoint") from None
    except Undelivered as error:
        raise Problem(503, f"{error}: try again in a moment.", "endpoint") from None
    try:
        await web_push.public_key()  # which makes the keys where there are none
    except OSError as error:
        raise Problem(503, unready(error)) from None
    subscription = token_hash(data.endpoint)
    for user, device in holders(users, subscription):
        if device != asker.device:
            await users.command(user, _removal(device, subscription))
    sealed = web_push.seal(asker.user, asker.device, data)
    command = AddPushSubscription(key=_key(), device=asker.device, subscription=subscription, sealed=sealed)
    consumed(await users.command(asker.user, command), 409)


@delete("/push/subscriptions")
async def unsubscribe(asker: Asker, users: Users) -> None:
    """Tell this device nothing more; also when it was told nothing."""
    if is_subscribed(users, asker):
        await users.command(asker.user, _removal(asker.device))


def is_subscribed(users: Users, asker: Asker) -> bool:
    known = users.get(asker.user)
    device = known.devices.get(asker.device) if known else None
    return device is not None and device.push is not None


def holders(users: Users, subscription: str) -> list[tuple[str, str]]:
    """User and device of whoever has this subscription."""
    return [
        (user.id, device.id)
        for user in users
        for device in user.devices.values()
        if device.push is not None and device.push.id == subscription
    ]


def _removal(device: str, subscription: str = "") -> RemovePushSubscription:
    return RemovePushSubscription(key=_key(), device=device, subscription=subscription)


def _key() -> str:
    return f"push-{secrets.token_hex(16)}"


ROUTER = Router("/api", route_handlers=[offer, subscribe, unsubscribe])
