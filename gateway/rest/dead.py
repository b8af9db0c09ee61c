"""Dead letters: what could not be decoded or handled (the owner)."""

from __future__ import annotations

from litestar import Router, delete, get, post
from msgspec import Struct

from gateway.dead import DeadLetters, Letter
from gateway.rest.identify import Owner
from protocol.live import Accepted
from services.bus import Bus


class Letters(Struct, frozen=True):
    letters: tuple[Letter, ...]
    """The oldest first; ask again with `after`, the sequence of the last one here."""


@get("/")
async def list_letters(owner: Owner, bus: Bus, after: int = 0, limit: int = 100) -> Letters:
    """What could not be decoded or handled, with the reason."""
    return Letters(await DeadLetters(bus).list(after, limit))


@get("/{sequence:int}")
async def show_letter(owner: Owner, bus: Bus, sequence: int) -> Letter:
    """One of them, with more of its text."""
    return await DeadLetters(bus).show(sequence)


@post("/{sequence:int}/put-back", status_code=202)
async def put_back(owner: Owner, bus: Bus, sequence: int) -> Accepted:
    """Send a user's command to a task once more; twice is once."""
    return await DeadLetters(bus).put_back(sequence)


@delete("/{sequence:int}")
async def remove_letter(owner: Owner, bus: Bus, sequence: int) -> None:
    """Forget it."""
    await DeadLetters(bus).remove(sequence)


ROUTER = Router("/api/dead", route_handlers=[list_letters, show_letter, put_back, remove_letter])
