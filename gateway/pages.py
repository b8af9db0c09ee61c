"""The phone's page: its files, read and compressed once, under an address that changes with them.

A page's modules stand under `/web/<version>/`, the version being a hash of all of them: they never change there, so
they are kept for ever, and no page is put together of two versions. `/` and the service worker are asked for each time.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from litestar import Request, Response, Router, get
from msgspec import Struct

from gateway.errors import Problem

WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
"""What is served; anything else in the folder (type declarations) is for those who write the page."""
AT_ROOT = ("index.html", "worker.js")
"""They name the others by their version, so they have none themselves."""
VERSION, MODULES, FILES, ERRAND = "@version@", "<!-- @modules@ -->", '"@files@"', "@errand@"
"""Stand in the files at the root for what is only known here."""
ASK_AGAIN = "no-cache"
KEEP = "public, max-age=31536000, immutable"


class Asset(Struct, frozen=True):
    """One file as it is sent."""

    media_type: str
    body: bytes
    gzipped: bytes
    """Empty where compressing gains nothing."""
    etag: str


def asset(name: str, body: bytes) -> Asset:
    gzipped = gzip.compress(body, 9, mtime=0)
    smaller = gzipped if len(gzipped) < len(body) * 0.9 else b""
    return Asset(TYPES[Path(name).suffix], body, smaller, f'"{digest(body)}"')


def digest(*bodies: bytes) -> str:
    return hashlib.sha256(b"\0".join(bodies)).hexdigest()[:16]


class Pages:
    """All files of the page, in memory."""

    def __init__(self, errand: str, folder: Path = WEB) -> None:
        """`errand` is the program's version, for people."""
        self._errand = errand
        bodies = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES
        }
        self.version = digest(*(name.encode() + b"\0" + body for name, body in bodies.items()))
        for name in AT_ROOT:
            bodies[name] = self._told(bodies[name], bodies)
        self.assets: Mapping[str, Asset] = {name: asset(name, body) for name, body in bodies.items()}

    def _told(self, body: bytes, bodies: Mapping[str, bytes]) -> bytes:
        """The file with what stands for the version and for the other files' names filled in."""
        names = [f"/web/{self.version}/{name}" for name in bodies if name not in AT_ROOT]
        links = "\n".join(f'<link rel="modulepreload" href="{name}">' for name in names if name.endswith(".js"))
        files = ", ".join(f'"{name}"' for name in ["/", *names])
        told = {VERSION: self.version, MODULES: links, FILES: files, ERRAND: self._errand}
        text = body.decode()
        for place, what in told.items():
            text = text.replace(place, what)
        return text.encode()


def answer(request: Request, found: Asset, cache: str) -> Response[bytes]:
    """The file, or that it is still the one the browser has."""
    headers = {"cache-control": cache, "etag": found.etag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(b"", status_code=304, headers=headers)
    if found.gzipped and "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(found.gzipped, media_type=found.media_type, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)


@get("/")
async def index(request: Request, pages: Pages) -> Response[bytes]:
    return answer(request, pages.assets["index.html"], ASK_AGAIN)


@get("/worker.js")
async def service_worker(request: Request, pages: Pages) -> Response[bytes]:
    """At the root, because it serves what is below where it stands."""
    return answer(request, pages.assets["worker.js"], ASK_AGAIN)


@get("/page.css")
async def style(request: Request, pages: Pages) -> Response[bytes]:
    """For what the server itself has to say to a browser."""
    return answer(request, pages.assets["page.css"], ASK_AGAIN)


@get("/web/{version:str}/{name:path}")
async def file(request: Request, pages: Pages, version: str, name: str) -> Response[bytes]:
    found = pages.assets.get(str(name).lstrip("/"))
    if found is None:
        raise Problem(404, "There is nothing at this address.")
    # While gateways of two versions run side by side, the other's page gets ours rather than nothing.
    return answer(request, found, KEEP if version == pages.version else ASK_AGAIN)


ROUTER = Router("/", route_handlers=[index, service_worker, style, file], include_in_schema=False)
