"""Who sends a request: the device's token, in the Authorization header and nowhere else."""

from __future__ import annotations

from litestar import Request

from gateway.errors import Problem
from gateway.users import Asker, Users


class Owner(Asker, frozen=True):
    """An asker who is the owner."""


async def asker(request: Request, users: Users) -> Asker:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = users.by_token(token.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise Problem(401, "Sign in: send your device's token as `Authorization: Bearer <token>`.")
    return found


async def owner(request: Request, users: Users) -> Owner:
    found = await asker(request, users)
    if not found.is_owner:
        raise Problem(403, "Only the owner may do this.")
    return Owner(found.user, found.device, found.name, found.role)
