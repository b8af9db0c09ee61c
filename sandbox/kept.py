"""The folder that a set-up fills. Whoever writes it is a stranger: it is read as data, no link is followed, and but for
`refuse_too_much` only when nobody writes in it any more."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox.contract import KEPT, SetupFailed
from sandbox.disk import BYTES_A_FILE
from sandbox.limits import MIB
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


class Folder:
    """A folder of ours within a tree that a stranger writes: what has its path may be another one by now, or a link to
    anything. The descriptor is that of the one we made."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.descriptor = descriptor
        self._path = path

    def path(self) -> Path:
        """Where it is, once nobody writes there any more. SetupFailed when that is somewhere else."""
        try:
            is_there = os.path.samestat(self._path.lstat(), os.fstat(self.descriptor))
        except OSError:
            is_there = False
        if not is_there:
            raise SetupFailed(f"The set-up moved the folder that is {KEPT}: nothing is kept.")
        return self._path


@contextmanager
def new_folder(path: Path) -> Iterator[Folder]:
    """Made where nobody writes yet."""
    path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _readable() -> Iterator[None]:
    """SetupFailed for what cannot be read."""
    try:
        yield
    except OSError as error:
        raise SetupFailed(f"What the set-up left cannot be read: {error.strerror}") from error


@_readable()
def refuse_too_much(folder: Folder, limit_bytes: int) -> None:
    """SetupFailed when it has more than `limit_bytes`, more files than a disk of that size has, or is deeper than who
    copies or removes it could bear. Also while it is written to."""
    _Count(limit_bytes).add(folder.descriptor, 1)


class _Count:
    """Of what is in a folder: no further than to what is too much."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._files_limit = max(1, limit_bytes // BYTES_A_FILE)
        self._bytes = 0
        self._files = 0

    def add(self, folder: int, depth: int) -> None:
        """All that is in `folder`, a descriptor. What goes away under our eyes is not there."""
        if depth > DEPTH_LIMIT:
            raise SetupFailed(f"The set-up left folders within each other, deeper than {DEPTH_LIMIT}: nothing is kept.")
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    self._add_one(entry, folder, depth)

    def _add_one(self, entry: os.DirEntry[str], folder: int, depth: int) -> None:
        status = entry.stat(follow_symlinks=False)
        self._files += 1
        self._bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if self._bytes > self._limit_bytes:
            raise self._too_much("")
        if self._files > self._files_limit:
            raise self._too_much(f"{self._files_limit:,} files, in ")
        if stat.S_ISDIR(status.st_mode):
            within = _open_folder(entry.name, folder)
            try:
                self.add(within, depth + 1)
            finally:
                os.close(within)

    def _too_much(self, files: str) -> SetupFailed:
        return SetupFailed(
            f"The set-up left more than the {files}{self._limit_bytes // MIB} MiB that are kept "
            "(ERRAND_SANDBOX_SETUP_MIB): remove caches at the end of the script."
        )


def _open_folder(name: str, parent: int) -> int:
    """FileNotFoundError also when it is something else by now."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise FileNotFoundError from error
        raise


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


@_readable()
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
    with (
        suppress(tarfile.TarError, OSError, ValueError),
        _InSips(path) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        while (member := tar.next()) is not None:
            # It keeps each header that it has read, of a stranger's millions too; typeshed does not have the list.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            if offset < member.offset_data + member.size:
                return f"{PLACES[path.name]}/{member.name.removeprefix('./')}"
    return f"a file of {PLACES[path.name]}"


class _InSips(io.FileIO):
    """A stranger's tar, which may announce a header of gigabytes: the standard library would read it at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= CHUNK_BYTES:
            raise OSError(f"a header of {size} bytes")
        return super().read(size)
