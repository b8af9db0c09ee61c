"""Send one command and wait for how it ended."""

from __future__ import annotations

import secrets

import anyio
from msgspec import Struct

from protocol.live import Accepted, CommandFrame, ReceiptSeen, Refused, Submit
from protocol.task import Receipt, ReceiptStatus
from services.cli.failure import Failure
from services.cli.session import Lost, Session

RECEIPT_SECONDS = 30.0
"""How long a receipt is waited for; the command stays stored and is handled later."""


class Done(Struct, frozen=True):
    """A command that was consumed."""

    task: str
    sequence: int


def new_key() -> str:
    return secrets.token_hex(16)


async def carry_out(session: Session, command: CommandFrame) -> Done:
    """Send `command` and return when it was done. Failure with the reason when it was refused or rejected."""
    await session.send(command)
    accepted: Accepted | None = None
    with anyio.move_on_after(RECEIPT_SECONDS):
        while True:
            received = await session.receive()
            if isinstance(received, Lost):
                continue
            frame = received.frame
            match frame:
                case Accepted() if frame.key == command.key:
                    accepted = frame
                case ReceiptSeen() if frame.receipt.key == command.key:
                    return _done(frame.receipt, frame.task, accepted)
                case Refused() if frame.key == command.key or not (frame.key or frame.task):
                    raise Failure(_refused(frame, command))
                case _:
                    pass
    if accepted is None:
        raise Failure(
            "The server did not say whether it took this: "
            f"send it again with `--key {command.key}`, it is not done twice."
        )
    raise Failure(
        f"The server has stored this but not handled it within {RECEIPT_SECONDS:.0f} s: it will be; "
        f"`errand show {accepted.task}` tells, `errand doctor` says what is wrong."
    )


def _refused(frame: Refused, command: CommandFrame) -> str:
    """Where nothing in the task is wrong, it may be stored all the same: trying again must not make a second one."""
    if frame.field or not isinstance(command, Submit):
        return frame.reason
    return f"{frame.reason} With `--key {command.key}` a second try is the same task."


def _done(receipt: Receipt, task: str, accepted: Accepted | None) -> Done:
    if receipt.status is ReceiptStatus.CONSUMED:
        return Done(task, accepted.sequence if accepted else 0)
    if receipt.status is ReceiptStatus.INDETERMINATE:
        raise Failure(
            f"It is not known whether this was done: {receipt.reason} `errand show {task}` tells how it stands."
        )
    raise Failure(receipt.reason or "The server rejected this and gave no reason.")
