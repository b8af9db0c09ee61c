"""The publisher's private key, and the envelopes that only it opens."""

from __future__ import annotations

from pathlib import Path

from services import envelope
from services.secrets_file import write_secret


class Vault:
    """The key lies in a file that only this user reads, and never in this object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where else secrets may lie, sealed."""
        self._key_file = folder / "repos.key"

    def prepare(self) -> None:
        """Make the private key, once in the life of an installation."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._key_file.exists():
            write_secret(self._key_file, envelope.make_key())

    def public_key(self) -> str:
        return envelope.public_key(self._key_file.read_text())

    def seal(self, bound_to: str, secret: str) -> str:
        return envelope.seal(self.public_key(), bound_to, secret)

    def unseal(self, bound_to: str, sealed: str) -> str:
        """Raises `envelope.NotOpened`."""
        return envelope.unseal(self._key_file.read_text(), bound_to, sealed)
