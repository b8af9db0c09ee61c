"""The live WebSocket of one command: signs in, sends, watches, and comes back from its cursor after every break."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable

import anyio
import msgspec
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException

from protocol.base import encode
from protocol.live import FRAME_LIMIT_BYTES as LARGEST_COMMAND_BYTES
from protocol.live import (
    Accepted,
    AnyServerFrame,
    Closing,
    CommandFrame,
    DecisionSeen,
    JournalSeen,
    ReceiptSeen,
    Refused,
    SignedIn,
    SignIn,
    WatchTask,
    decode_server_frame,
)
from services.cli.account import SIGN_IN, Account
from services.cli.cursor import Cursor, Verdict
from services.cli.failure import Failure

FRAME_LIMIT_BYTES = 4 * 1024 * 1024
"""The largest frame taken from a server: an event of 512 KiB or a whole task list."""
FIRST_SECONDS = 2.0
"""How long the first connection is tried: long enough for a gateway that is being started again."""
AGAIN_SECONDS = 600.0
"""How long a lost connection is tried again."""
ANSWER_SECONDS = 10.0
"""For the server to open a connection and to answer the sign-in."""
SHORTEST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 5.0
GAPS_LIMIT = 3
"""So many gaps in a row at one cursor are the server's fault."""


class Received(Struct, frozen=True):
    """A frame as it came."""

    raw: str
    frame: AnyServerFrame


class Lost(Struct, frozen=True):
    """The connection broke; the next `receive` connects again."""

    reason: str


class Session:
    """Use it as `async with`, one `receive` at a time. Raises Failure for what another try cannot mend."""

    def __init__(
        self,
        account: Account,
        *,
        first_seconds: float = FIRST_SECONDS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._account = account
        self._first_seconds = first_seconds
        self._chance = chance
        self._socket: ClientConnection | None = None
        self._outbox: dict[str, CommandFrame] = {}
        """Commands without a receipt yet: sent again, with their keys, over every new connection."""
        self._task = ""
        self._output = False
        self._cursor = Cursor()
        self._gaps = 0
        self._fruitless = 0
        """Connections in a row that brought nothing but the sign-in."""
        self._broken_at: float | None = None
        """Since when nothing came."""
        self.connections = 0
        self.greeting: Received | None = None
        """How the server greeted last: who we are, and the notices for every screen."""
        self.seen = 0
        """The highest stream sequence that any frame named."""

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._close()

    async def send(self, command: CommandFrame) -> None:
        """Send a command, again after each break, until its receipt came."""
        if len(encode(command)) > LARGEST_COMMAND_BYTES:
            raise Failure(f"This is too long: at most {LARGEST_COMMAND_BYTES // 1024} KiB can be sent at once.")
        self._outbox[command.key] = command
        if self._socket is not None:
            await self._write(self._socket, command)

    async def watch(self, task: str, *, cursor: int = 0, output: bool = True) -> None:
        """Follow one task; events that were seen already are left out of what `receive` returns."""
        self._task, self._output, self._cursor = task, output, Cursor(cursor)
        if self._socket is not None:
            await self._write(self._socket, WatchTask(task=task, cursor=cursor, output=output))

    async def receive(self) -> Received | Lost:
        """The next frame, in order, once."""
        while True:
            if self._socket is None:
                return await self._open()
            try:
                raw = await self._socket.recv(decode=True)
            except ConnectionClosed as closed:
                return await self._lose(_why(closed))
            assert isinstance(raw, str)
            taken = await self._take(raw)
            if not isinstance(taken, Lost):
                self._fruitless, self._broken_at = 0, None
            if taken is not None:
                return taken

    async def _take(self, raw: str) -> Received | Lost | None:
        frame = _decode(raw)
        match frame:
            case DecisionSeen() | JournalSeen() if frame.task == self._task:
                self.seen = max(self.seen, frame.sequence)
                verdict = self._cursor.take(frame)
                if verdict is Verdict.SEEN:
                    return None
                if verdict is Verdict.GAP:
                    return await self._come_back(frame.sequence)
                self._gaps = 0
                if isinstance(frame, DecisionSeen) and frame.decision.receipt is not None:
                    self._outbox.pop(frame.decision.receipt.key, None)
            case Accepted():
                self.seen = max(self.seen, frame.sequence)
            case ReceiptSeen():
                self._outbox.pop(frame.receipt.key, None)
            case Refused() if frame.key:
                self._outbox.pop(frame.key, None)
            case Closing():
                if not frame.come_back:
                    raise Failure(f"The server closed the connection: {frame.reason}")
                return await self._lose(frame.reason)
            case _:
                pass
        return Received(raw, frame)

    async def _come_back(self, sequence: int) -> Lost:
        self._gaps += 1
        if self._gaps > GAPS_LIMIT:
            raise Failure(
                f"The server leaves out events of this task between {self._cursor.sequence} and {sequence}: "
                "run `errand doctor`, and report it."
            )
        return await self._lose("an event was missing")

    async def _lose(self, reason: str) -> Lost:
        await self._close()
        self._fruitless += 1
        self._broken_at = self._broken_at or anyio.current_time()
        return Lost(reason)

    async def _open(self) -> Received:
        """Connect and sign in, with growing waits, then send again what has no receipt and watch from the cursor."""
        patience = AGAIN_SECONDS if self.connections else self._first_seconds
        deadline = (self._broken_at or anyio.current_time()) + patience
        if self._fruitless > 1:
            await self._wait(self._fruitless, deadline, "it closes every connection")
        tries = 0
        while True:
            try:
                return await self._open_once()
            except _Retry as error:
                tries += 1
                await self._wait(tries, deadline, str(error))

    async def _wait(self, tries: int, deadline: float, reason: str) -> None:
        seconds = min(LONGEST_WAIT_SECONDS, SHORTEST_WAIT_SECONDS * 2 ** min(tries, 10)) * (0.5 + self._chance() / 2)
        if anyio.current_time() + seconds > deadline:
            raise Failure(self._unreachable(reason))
        await anyio.sleep(seconds)

    async def _open_once(self) -> Received:
        with anyio.move_on_after(ANSWER_SECONDS):
            socket = await _connect(self._account)
            try:
                signed_in = await self._sign_in(socket)
                # From here on `send` writes by itself: a command may go twice, under one key, but none is left out.
                self._socket = socket
                for command in list(self._outbox.values()):
                    await self._write(socket, command)
                if self._task:
                    again = WatchTask(task=self._task, cursor=self._cursor.sequence, output=self._output)
                    await self._write(socket, again)
            except BaseException:
                self._socket = socket
                with anyio.CancelScope(shield=True):
                    await self._close()
                raise
            self.connections += 1
            self.greeting = signed_in
            return signed_in
        raise _Retry(f"no answer within {ANSWER_SECONDS:.0f} s")

    async def _sign_in(self, socket: ClientConnection) -> Received:
        await self._write(socket, SignIn(token=self._account.token))
        try:
            raw = await socket.recv(decode=True)
        except ConnectionClosed as closed:
            raise _Retry(_why(closed)) from None
        assert isinstance(raw, str)
        match frame := _decode(raw):
            case SignedIn():
                return Received(raw, frame)
            case Closing(come_back=True):
                raise _Retry(frame.reason)
            case Refused() | Closing():
                raise Failure(f"{self._account.server} refused the sign-in ({frame.reason}): {SIGN_IN}.")
            case _:
                raise Failure(f"{self._account.server} does not speak Errand's protocol: is the address right?")

    def _unreachable(self, reason: str) -> str:
        server = self._account.server
        if self.connections:
            return f"The connection to {server} is lost ({reason}); what it accepted goes on there. Try again later."
        return f"No Errand server answers at {server} ({reason}): start it with `errand up`, or check the address."

    async def _write(self, socket: ClientConnection, frame: Struct) -> None:
        # A break shows at the next `receive`, which sends again.
        try:
            await socket.send(encode(frame).decode())
        except ConnectionClosed:
            return

    async def _close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            with anyio.move_on_after(1.0):
                await socket.close()


class _Retry(Exception):
    """This try failed in a way that the next may not."""


async def _connect(account: Account) -> ClientConnection:
    url = "ws" + account.server.removeprefix("http") + "/api/live"
    try:
        return await connect(
            url,
            proxy=None if account.is_local else True,
            compression=None if account.is_local else "deflate",
            open_timeout=None,
            close_timeout=1,
            max_size=FRAME_LIMIT_BYTES,
        )
    except ssl.SSLCertVerificationError as error:
        raise Failure(
            f"The certificate of {account.server} is not trusted ({error.verify_message}): check the address."
        ) from None
    except InvalidURI:
        raise Failure(f"{account.server} is not a server's address.") from None
    except InvalidStatus as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            raise _Retry(f"it answers {status}") from None
        raise Failure(f"{account.server} is no Errand server (it answers {status}): check the address.") from None
    except (OSError, InvalidHandshake, WebSocketException, EOFError) as error:
        raise _Retry(_short(error)) from None


def _decode(raw: str) -> AnyServerFrame:
    try:
        return decode_server_frame(raw)
    except msgspec.DecodeError as error:
        raise Failure(
            f"The server sent what this version of `errand` cannot read ({error}): update the older of the two."
        ) from None


def _why(closed: ConnectionClosed) -> str:
    if closed.rcvd is None:
        return "the connection broke"
    return closed.rcvd.reason or f"closed with code {closed.rcvd.code}"


def _short(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused"
    return str(error) or type(error).__name__
