"""Which repository a task is for, from where one stands."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from services.cli.failure import Failure

GIT_SECONDS = 10.0


def choose(given: str | None, folder: Path) -> str:
    """`--repo` as the server needs it; None: `origin` of the repository around `folder`, or its path."""
    if given is None:
        return _around(folder)
    if not given.strip():
        # A script's variable that is not set: the branch would be pushed to whatever one stands in.
        raise Failure("`--repo` is empty: name a repository, or leave `--repo` out for the one you stand in.")
    if _has_secret(given):
        raise Failure(
            "The repository's URL has a password in it, and whoever sees the task would see it: "
            "leave it out and give it to the server with `errand host add`."
        )
    return _absolute(given, folder)


def _around(folder: Path) -> str:
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top:
        raise Failure("You are not in a git repository: say which one with `--repo URL`.")
    origin = _git(folder, "remote", "get-url", "origin")
    return _absolute(_without_secret(origin), Path(top)) if origin else top


def _absolute(repository: str, folder: Path) -> str:
    """A URL as it is; a path, which counts on the server, made absolute where it exists here."""
    if "://" in repository or repository.startswith("-"):
        return repository
    path = Path(repository).expanduser()
    here = path if path.is_absolute() else folder / path
    return str(here.resolve()) if here.exists() else repository


def _has_secret(url: str) -> bool:
    parts = urlsplit(url) if "://" in url else None
    return parts is not None and (parts.password is not None or (parts.scheme != "ssh" and parts.username is not None))


def _without_secret(url: str) -> str:
    """Tokens in a clone's own `origin` stay on this machine."""
    if not _has_secret(url):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    return urlunsplit(parts._replace(netloc=user + host))


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; empty where it fails or there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, errors="surrogateescape", stdin=subprocess.DEVNULL,
            timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
