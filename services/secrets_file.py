"""Files with a secret in them."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def make_secret(path: Path, text: str) -> str:
    """What the file holds; made with `text` where there is none. Side by side the first one wins."""
    if not path.exists():
        own = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        write_secret(own, text)
        with suppress(FileExistsError):
            path.hardlink_to(own)
        own.unlink()
    return path.read_text()


def write_secret(path: Path, text: str) -> None:
    """A file that only this user can read: there as a whole, on disk, or not at all. Side by side the last one wins."""
    # mkstemp makes it with mode 0600 and under a name that nobody else has.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
