"""The keys of push: one signs what is sent, for the push services to know us by; one opens the sealed subscriptions.

`python -m gateway.push.keys FILE` makes them where there are none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from services import envelope
from services.secrets_file import make_secret


class Keys(Struct, frozen=True):
    """As the file has them. All gateways of an installation have the same: a browser's subscription is bound to it."""

    vapid: str
    """P-256 private key, 32 bytes, base64url (RFC 8292)."""
    vapid_public: str
    """The uncompressed point that belongs to it, base64url: what browsers are given as `applicationServerKey`."""
    sealing: str
    """X25519 private key, 32 bytes, base64."""

    def __repr__(self) -> str:
        return "Keys(…)"


def load(path: Path) -> Keys:
    """Raises OSError, also for a file that is something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Keys)
    except msgspec.MsgspecError:
        raise OSError(f"{path} is broken: remove it, and every device turns notifications on again") from None


async def make(path: Path) -> None:
    """Make the file where there is none, in a process that ends: 10 MiB of `cryptography` would stay in this one for a
    thing that is done once. Raises OSError."""
    if not path.exists():
        done = await anyio.run_process([sys.executable, "-P", "-m", __name__, str(path)], check=False)
        if done.returncode != 0:
            raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def _new() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from py_vapid.utils import b64urlencode

    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    number = private.private_numbers().private_value.to_bytes(32, "big")
    keys = Keys(vapid=b64urlencode(number), vapid_public=b64urlencode(point), sealing=envelope.make_key())
    return msgspec.json.encode(keys).decode()


def main(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_secret(path, _new())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
