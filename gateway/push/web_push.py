"""The Web Push channel (RFC 8030): a message is encrypted for one browser (RFC 8291), signed by this installation
(RFC 8292), and given to the push service that the browser chose.

The address of a push service comes from a client, so only https to public addresses is taken, at the very address that
was looked at (CWE-918), and nothing of an answer but its status is read.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import anyio
import msgspec
from msgspec import Struct

from gateway.push.keys import Keys, load, make
from gateway.push.news import News
from protocol.repo import normal_host
from services import envelope
from services.config import WrongSetting
from services.reach import LookUp, NotLookedUp, look_up, public_addresses

if TYPE_CHECKING:
    import httpx2
    from py_vapid import Vapid02

# `httpx2`, `http_ece`, `py_vapid` and with them `cryptography` are imported by the first push: 9 MiB that a gateway
# without one does not carry.

ENDPOINT_LIMIT_CHARS = 2_000
ENDPOINT = re.compile(r"https?://[!-~]+")
POINT_BYTES = 65
AUTH_BYTES = 16
SEND_SECONDS = 5.0
SIGNED_SECONDS = 12 * 3600
"""How long a signature is good; RFC 8292 allows a day."""
AGAIN_SECONDS = 15.0
LONGEST_AGAIN_SECONDS = 600.0
GONE = (404, 410)
PASSING = (408, 425, 429)


class SubscriptionKeys(Struct, frozen=True):
    p256dh: str
    """The browser's public key, an uncompressed point, base64url."""
    auth: str
    """16 bytes that the browser and we share, base64url."""


class Subscription(Struct, frozen=True):
    """`PushSubscription.toJSON()` of the Push API."""

    endpoint: str
    keys: SubscriptionKeys

    def __repr__(self) -> str:
        return "Subscription(…)"  # who knows an endpoint can be told apart by it


class Unusable(ValueError):
    """No message can be sent to this subscription; the sentence is for a person."""


class Expired(Exception):
    """The browser has given the subscription up."""


class Undelivered(Exception):
    """The push service does not take it now."""

    def __init__(self, why: str, seconds: float = AGAIN_SECONDS) -> None:
        super().__init__(why)
        self.seconds = seconds
        """When it is worth another try."""


class WebPush:
    """The channel, with the keys of this installation."""

    def __init__(self, key_file: Path | None, contact: str, hosts: str, look_up: LookUp = look_up) -> None:
        """`key_file` is made at the first use; `contact` and `hosts` are ERRAND_PUSH_CONTACT and ERRAND_PUSH_HOSTS."""
        self._key_file = key_file
        self._loaded: Keys | None = None
        self._trouble = ""
        """Why the last push was not delivered; empty when it was."""
        self._contact = contact
        self._trusted = trusted_hosts(hosts)
        self._look_up = look_up
        self._vapid: Vapid02 | None = None
        self._client: httpx2.AsyncClient | None = None

    def problem(self) -> str:
        """What keeps pushes from their devices, a sentence; empty where nothing is known to."""
        try:
            if self._key_file is None or self._key_file.exists():
                _ = self._keys
        except OSError as error:
            return f"The keys cannot be read: {error}."
        return self._trouble and f"The last one was not delivered: {self._trouble}."

    @property
    def _keys(self) -> Keys:
        if self._key_file is None:
            raise FileNotFoundError("neither ERRAND_DATA nor ERRAND_PUSH_KEY_FILE is set")
        self._loaded = self._loaded or load(self._key_file)
        return self._loaded

    async def public_key(self) -> str:
        """What the page gives the browser as `applicationServerKey`, base64url. Raises OSError where the keys can be
        neither read nor made."""
        if self._key_file is not None:
            await make(self._key_file)
        return self._keys.vapid_public

    # Subscriptions as they are kept

    def seal(self, user: str, device: str, subscription: Subscription) -> str:
        text = msgspec.json.encode(subscription).decode()
        return envelope.seal(envelope.public_key(self._keys.sealing), _purpose(user, device), text)

    def unseal(self, user: str, device: str, sealed: str) -> Subscription:
        """Raises envelope.NotOpened, and Undelivered while the keys cannot be read."""
        try:
            private = self._keys.sealing
        except OSError as error:
            raise Undelivered(f"the keys cannot be read ({error})") from None
        text = envelope.unseal(private, _purpose(user, device), sealed)
        return msgspec.json.decode(text, type=Subscription)

    async def check(self, subscription: Subscription) -> None:
        """Raises Unusable, and Undelivered when the name cannot be looked up now."""
        from cryptography.hazmat.primitives.asymmetric import ec

        point = _bytes(subscription.keys.p256dh, POINT_BYTES, "p256dh")
        _bytes(subscription.keys.auth, AUTH_BYTES, "auth")
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise Unusable("keys.p256dh is no point of the curve P-256.") from None
        await self._address(self._endpoint(subscription))

    # Sending

    async def send(self, subscription: Subscription, news: News, ttl_seconds: int) -> None:
        """Raises Expired, Undelivered and Unusable."""
        try:
            await self._send(subscription, news, ttl_seconds)
        except (Undelivered, Unusable) as error:
            self._trouble = str(error).rstrip(".")
            raise
        self._trouble = ""

    async def _send(self, subscription: Subscription, news: News, ttl_seconds: int) -> None:
        endpoint = self._endpoint(subscription)
        address = await self._address(endpoint)
        headers, body = self._headers(endpoint, news, ttl_seconds), encrypt(subscription, news)
        status, retry_after = await post(self._connections(), endpoint, address, headers, body)
        if status in GONE:
            raise Expired
        if status in PASSING or status >= 500:
            raise Undelivered(f"{endpoint.hostname} answers {status}", _seconds(retry_after))
        if status >= 300:
            raise Unusable(f"{endpoint.hostname} answers {status}.")

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _connections(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2

            # No proxy, which would look the name up once more; the environment's authorities all the same.
            authorities = httpx2.create_ssl_context()
            self._client = httpx2.AsyncClient(verify=authorities, trust_env=False, timeout=SEND_SECONDS)
        return self._client

    def _endpoint(self, subscription: Subscription) -> SplitResult:
        text = subscription.endpoint
        if len(text) > ENDPOINT_LIMIT_CHARS or not ENDPOINT.fullmatch(text):
            raise Unusable(f"The endpoint is an https URL of at most {ENDPOINT_LIMIT_CHARS} characters.")
        endpoint = urlsplit(text)
        try:
            host = normal_host(endpoint.netloc)
        except ValueError:
            raise Unusable("The endpoint has no host that can be used.") from None
        if endpoint.scheme != "https" and host not in self._trusted:
            raise Unusable("A push service is reached by https.")
        return endpoint

    async def _address(self, endpoint: SplitResult) -> str:
        name = endpoint.hostname or ""
        if normal_host(endpoint.netloc) in self._trusted:
            return name
        try:
            found = await public_addresses(name, self._look_up)
        except NotLookedUp:
            raise Undelivered(f"{name} cannot be looked up right now") from None
        if not found:
            raise Unusable(f"{name} has no public address. The operator can allow it (ERRAND_PUSH_HOSTS).")
        return found[0]

    def _headers(self, endpoint: SplitResult, news: News, ttl_seconds: int) -> dict[str, str]:
        claims = {
            "aud": f"{endpoint.scheme}://{endpoint.netloc}",
            "exp": int(time.time()) + SIGNED_SECONDS,
            "sub": self._contact,
        }
        return {
            **self._signer().sign(claims),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(ttl_seconds),
            "urgency": "high" if news.urgent else "normal",
            # Of what waits for a phone that is off, the push service keeps the newest of a task.
            "topic": news.tag,
        }

    def _signer(self) -> Vapid02:
        if self._vapid is None:
            from py_vapid import Vapid02

            self._vapid = Vapid02.from_raw(self._keys.vapid.encode())
        return self._vapid


async def post(
    client: httpx2.AsyncClient, endpoint: SplitResult, address: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, str]:
    """The answer's status and its `Retry-After`. Raises Undelivered."""
    import httpx2

    host = f"[{address}]" if ":" in address else address
    request = client.build_request(
        "POST",
        endpoint._replace(netloc=f"{host}:{endpoint.port}" if endpoint.port else host).geturl(),
        content=body,
        headers={**headers, "host": endpoint.netloc},
        # The connection goes to the address, the certificate must be the name's.
        extensions={"sni_hostname": endpoint.hostname},
    )
    try:
        with anyio.fail_after(SEND_SECONDS):
            answer = await client.send(request, stream=True)
            await answer.aclose()
    except (httpx2.HTTPError, TimeoutError) as error:
        raise Undelivered(f"{endpoint.hostname} does not answer: {type(error).__name__}") from None
    return answer.status_code, answer.headers.get("retry-after", "")


def encrypt(subscription: Subscription, news: News) -> bytes:
    """The push message's body: what `self.addEventListener("push")` sees as `{"title", "body", "tag", "url"}`."""
    import http_ece
    from cryptography.hazmat.primitives.asymmetric import ec

    shown = {"title": news.title, "body": news.body, "tag": news.tag, "url": news.url}
    return http_ece.encrypt(
        msgspec.json.encode(shown),
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=_bytes(subscription.keys.p256dh, POINT_BYTES, "p256dh"),
        auth_secret=_bytes(subscription.keys.auth, AUTH_BYTES, "auth"),
        version="aes128gcm",
    )


def trusted_hosts(setting: str) -> frozenset[str]:
    try:
        return frozenset(normal_host(part) for part in setting.split(",") if part.strip())
    except ValueError as error:
        raise WrongSetting(f"ERRAND_PUSH_HOSTS: {error}") from None


def _purpose(user: str, device: str) -> str:
    """What the envelope is bound to; no host's name looks like it."""
    return f"push/{user}/{device}"


def _bytes(text: str, size: int, field: str) -> bytes:
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size:
        raise Unusable(f"keys.{field} is not {size} bytes in base64url.")
    return found


def _seconds(retry_after: str) -> float:
    return min(max(float(retry_after), 1.0), LONGEST_AGAIN_SECONDS) if retry_after.isdecimal() else AGAIN_SECONDS
