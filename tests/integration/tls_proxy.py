"""A real nginx that speaks TLS before the gateway, with the very lines of docs/reaching.md, and an authority."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
import trustme

from tests.integration.nats_house import free_port

DOCS = Path(__file__).parents[2] / "docs" / "reaching.md"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SECONDS = 10.0
PEER = "127.0.0.3"
"""From this address of loopback the proxy comes to the gateway: not from the one that everybody else comes from."""
CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        proxy_bind {peer};
        {location}
    }}
}}
"""


def documented() -> str:
    """The `location` block that people are told to write."""
    found = re.search(r"```\n(location / \{.*?\n\})\n```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


class TlsProxy:
    """Listens on a port of its own at `https://localhost`; its authority is in `authority.pem`."""

    def __init__(
        self, folder: Path, gateway_port: int, *, days: int = 90, changes: Mapping[str, str] | None = None
    ) -> None:
        """`changes` are made to the documented lines: what somebody gets wrong."""
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.authority = folder / "authority.pem"
        self._folder = folder
        location = documented().replace("127.0.0.1:8420", f"127.0.0.1:{gateway_port}")
        for line, instead in (changes or {}).items():
            assert line in location
            location = location.replace(line, instead)
        ends = datetime.now(UTC) + timedelta(days=days, hours=1)
        issuer = trustme.CA()
        certificate = issuer.issue_cert("localhost", not_after=ends)
        issuer.cert_pem.write_to_path(self.authority)
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(folder / "certificate.pem", append=True)
        text = CONFIG.format(folder=folder, port=self.port, peer=PEER, location=location)
        (folder / "nginx.conf").write_text(text)

    @contextmanager
    def running(self) -> Iterator[TlsProxy]:
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [NGINX, "-p", str(self._folder), "-c", "nginx.conf", "-e", "stderr"], stdout=log, stderr=log
            )
        try:
            self._until_answering()
            yield self
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)

    def _until_answering(self) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with suppress(httpx2.HTTPError), httpx2.Client(verify=False, trust_env=False) as client:
                client.get(self.url)
                return
        raise AssertionError((self._folder / "log").read_text())


def need_nginx() -> None:
    if not Path(NGINX).exists():
        if os.environ.get("CI"):
            raise AssertionError("CI has no nginx")
        pytest.skip("there is no nginx: apt install nginx-light")
