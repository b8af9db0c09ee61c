"""The bus: connect, publish, commit, read, ask and serve. The one place that knows NATS.

Facts that it rests on (server 2.15, measured): a publish with an expected last sequence over a wildcard is refused with
error 10071 when somebody else wrote; `republish` delivers what was stored, with its sequence; a batched direct get
replays without a consumer; a message id that was seen within two minutes answers with the sequence it got the first
time.
"""

from services.bus.bus import Bus
from services.bus.client import TIMEOUT_SECONDS, jetstream_api
from services.bus.connection import BusConfig, connect
from services.bus.endpoint import REPLIES, Handler
from services.bus.errors import Conflict, Later, NoAnswer, Refused, Unavailable
from services.bus.reader import SILENCE_SECONDS, Reader
from services.bus.stored import Buried, Stored
from services.bus.streams import ARCHIVE, BLOBS, LEASE_SECONDS, LEASES, SNAPSHOTS, STREAMS, Renewal
from services.bus.turns import Turns

__all__ = [
    "ARCHIVE",
    "BLOBS",
    "LEASES",
    "LEASE_SECONDS",
    "REPLIES",
    "SILENCE_SECONDS",
    "SNAPSHOTS",
    "STREAMS",
    "TIMEOUT_SECONDS",
    "Buried",
    "Bus",
    "BusConfig",
    "Conflict",
    "Handler",
    "Later",
    "NoAnswer",
    "Reader",
    "Refused",
    "Renewal",
    "Stored",
    "Turns",
    "Unavailable",
    "connect",
    "jetstream_api",
]
