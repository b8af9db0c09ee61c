"""The folder that a set-up filled. Whoever wrote it is a stranger: it is read as data, no link is followed, and nobody
writes in it any more."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sandbox.contract import KEPT, SetupFailed
from sandbox.secret_values import CHUNK_BYTES, find_in_file, forms

PACKED = ".kept"
"""The folder of what is unpacked at the start of each sandbox: a tar for each of these places."""
PLACES = {"home.tar": "~", "workspace.tar": "/workspace"}
BLOCK_BYTES = 512
DEPTH_LIMIT = 100

# GNU tar is in every image that has git; names are given as they are, whatever is in them.
PACK = f"""\
set -eu
rm -rf {KEPT}/{PACKED} && mkdir {KEPT}/{PACKED} && cd {KEPT}/{PACKED}
command -v tar >/dev/null || {{ echo "tar is needed to keep what a set-up leaves"; exit 1; }}
git -C /workspace ls-files -z --others --ignored --exclude-standard --directory >list
tar --create --file workspace.tar --directory /workspace --null --verbatim-files-from --files-from "$PWD/list"
tar --create --file home.tar --directory "$HOME" --exclude ./.cache/pycache .
rm list
git -C /workspace -c core.quotePath=true status --porcelain --untracked-files=normal | head -n 200
"""
"""Says what git sees of it: that is not kept."""
UNPACK = f"""\
set -eu
cd {KEPT}/{PACKED} 2>/dev/null || exit 0
tar --extract --preserve-permissions --file home.tar --directory "$HOME"
tar --extract --preserve-permissions --skip-old-files --file workspace.tar --directory /workspace
"""
"""What the commit brings by itself stays as it is there. An image that a Dockerfile made has nothing to unpack."""


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(status.st_size for _, status in walk(folder) if stat.S_ISREG(status.st_mode))


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below, a folder before what is in it; what is neither file, folder nor link is left out."""
    waiting = [_within(folder)]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            yield Path(entry.path), status
        elif stat.S_ISDIR(status.st_mode):
            yield Path(entry.path), status
            waiting.append(_within(entry.path))


def _within(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return iter(sorted(found, key=lambda entry: entry.name))


def refuse_depth(folder: Path) -> None:
    """SetupFailed for what would exhaust the stack of whoever copies or removes it."""
    for path, _ in walk(folder):
        if len(path.relative_to(folder).parts) > DEPTH_LIMIT:
            raise SetupFailed(f"The set-up left folders within each other, deeper than {DEPTH_LIMIT}: nothing is kept.")


def archive(folder: Path, target: str) -> Iterator[bytes]:
    """A tar of it below `target`: root's, readable by everybody, with no other right."""
    yield _header(_info(target, tarfile.DIRTYPE, 0o755))
    for path, status in walk(folder):
        name = f"{target}/{path.relative_to(folder)}"
        if stat.S_ISDIR(status.st_mode):
            yield _header(_info(name, tarfile.DIRTYPE, 0o755, status.st_mtime))
        elif stat.S_ISLNK(status.st_mode):
            info = _info(name, tarfile.SYMTYPE, 0o777, status.st_mtime)
            info.linkname = str(path.readlink())
            yield _header(info)
        else:
            info = _info(name, tarfile.REGTYPE, 0o755 if status.st_mode & 0o111 else 0o644, status.st_mtime)
            info.size = status.st_size
            yield _header(info)
            yield from _content(path, info.size)
    yield bytes(2 * BLOCK_BYTES)


def _info(name: str, kind: bytes, mode: int, time: float = 0.0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.type, info.mode, info.mtime = kind, mode, int(time)
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield bytes(-size % BLOCK_BYTES)


def open_up(folder: Path) -> None:
    """Make it all readable by everybody, in place."""
    folder.chmod(0o755)
    for path, status in walk(folder):
        if not stat.S_ISLNK(status.st_mode):
            is_program = stat.S_ISDIR(status.st_mode) or status.st_mode & 0o111
            path.chmod(0o755 if is_program else 0o644)
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)


def refuse_secrets(folder: Path, secrets: Mapping[str, str]) -> None:
    """SetupFailed with the secret's name and the place where it lies."""
    searched = forms(secrets)
    for path, status in walk(folder) if searched else ():
        said = f"{path.relative_to(folder)}\0{path.readlink() if stat.S_ISLNK(status.st_mode) else ''}"
        for form, name in searched.items():
            if form in os.fsencode(said):
                raise _left(name, f"the name of a file in {KEPT}")
        if stat.S_ISREG(status.st_mode):
            found = find_in_file(path, searched)
            if found is not None:
                raise _left(found[1], _place(path, folder, found[0]))


def _left(name: str, place: str) -> SetupFailed:
    return SetupFailed(
        f"The set-up left the secret {name} in {place}, where the agent could read it, so nothing is kept. Remove it "
        "at the end of the script."
    )


def _place(path: Path, folder: Path, offset: int) -> str:
    """For a person."""
    relative = path.relative_to(folder)
    if relative.parent.name != PACKED or path.name not in PLACES:
        return f"{KEPT}/{relative}"
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if offset < member.offset_data + member.size:
                    return f"{PLACES[path.name]}/{member.name.removeprefix('./')}"
    except (tarfile.TarError, OSError):
        pass
    return f"a file of {PLACES[path.name]}"
