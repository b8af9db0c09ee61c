"""How a repository wants its sandboxes prepared: read from the mirror's objects at one commit, never from a tree.

`.errand/setup.sh` is run; an image comes from `.errand/Dockerfile`, or from a devcontainer.json, of which `image` and
`build.dockerfile` are heeded and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from protocol.repo import SetupFound
from services.repos.git import Git

SCRIPT = ".errand/setup.sh"
DOCKERFILE = ".errand/Dockerfile"
MORE_INPUTS = ".errand/inputs"
"""Patterns of further files that the set-up depends on, one a line."""
DEVCONTAINERS = (".devcontainer/devcontainer.json", ".devcontainer.json")
FOLDERS = (".errand", ".devcontainer")
"""All that lies in them is an input."""
INPUT_NAMES = (
    # What git ignores is kept, so what it ignores counts.
    ".gitignore",
    *("package.json", "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", "yarn.lock"),
    *("bun.lock", "bun.lockb", "deno.lock", ".nvmrc", ".node-version", ".python-version", ".tool-versions"),
    *("pyproject.toml", "setup.py", "setup.cfg", "poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock"),
    *("requirements*.txt", "requirements*.lock", "environment.yml", "Cargo.lock", "rust-toolchain*"),
    *(
        "go.mod",
        "go.sum",
        "Gemfile.lock",
        "composer.lock",
        "mix.lock",
        "gradle.lockfile",
        "pom.xml",
        "packages.lock.json",
        "mise.toml",
    ),
)
"""Files, in whatever folder, that say what is installed."""
FILE_LIMIT_BYTES = 64 * 1024
PATTERNS_LIMIT = 100
LIST_LIMIT_BYTES = 64 * 1024 * 1024
JSON_WITH_COMMENTS = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"(?=.{{1,255}}$)(?:{PART}(?::[0-9]+)?/)?{PART}(?:/{PART})*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?"
    r"(?:@sha256:[0-9a-f]{64})?"
)
"""As an engine's names are written (`distribution/reference`): it becomes a part of a URL, in which `..` leads away."""


class File(Struct, frozen=True):
    """One file of a commit."""

    mode: str
    """`100644`, `100755`, or `120000` for a link."""
    blob: str
    path: str

    @property
    def is_regular(self) -> bool:
        return self.mode.startswith("100")


class Build(Struct, frozen=True):
    dockerfile: str = ""


class Devcontainer(Struct, frozen=True):
    """Of a devcontainer.json, what is heeded."""

    image: str = ""
    build: Build = Build()


async def find_setup(git: Git, mirror: Path, commit: str) -> SetupFound | None:
    """None where the commit says nothing of it. GitFailed when the mirror cannot be read."""
    said = {file.path: file for file in await list_files(git, mirror, commit, *FOLDERS, *DEVCONTAINERS)}
    notices = [notice for path in (SCRIPT, DOCKERFILE) if (notice := no_file(path, said))]
    script = SCRIPT if SCRIPT in said and said[SCRIPT].is_regular else ""
    image, dockerfile, more = await find_image(git, mirror, said)
    if not script and not image and not dockerfile and not more and not notices:
        return None
    patterns = await read_patterns(git, mirror, said)
    everything = await list_files(git, mirror, commit)
    return SetupFound(
        inputs=digest(file for file in everything if is_input(file.path, patterns)),
        script=script,
        image=image,
        dockerfile=dockerfile,
        notices=(*notices, *more),
    )


async def list_files(git: Git, mirror: Path, commit: str, *paths: str) -> list[File]:
    """The files below `paths`, of the whole commit without them."""
    output = await git.run(
        *("ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths), repository=mirror, limit_bytes=LIST_LIMIT_BYTES
    )
    found = []
    for line in output.data.split(b"\0"):
        about, _, path = line.partition(b"\t")
        words = about.decode().split()
        if len(words) == 3 and words[1] == "blob":
            found.append(File(words[0], words[2], path.decode(errors="surrogateescape")))
    return found


async def find_image(git: Git, mirror: Path, said: dict[str, File]) -> tuple[str, str, list[str]]:
    """The image or the Dockerfile that is named, and what of it is not heeded."""
    if DOCKERFILE in said and said[DOCKERFILE].is_regular:
        return "", DOCKERFILE, []
    path = next((path for path in DEVCONTAINERS if path in said and said[path].is_regular), "")
    if not path:
        return "", "", []
    try:
        asked = read_devcontainer(await read_text(git, mirror, said[path]))
    except ValueError as error:
        return "", "", [f"{path} is not heeded: {error}"]
    if asked.build.dockerfile:
        named = str(PurePosixPath(path).parent / asked.build.dockerfile)
        if named in said and said[named].is_regular and named.startswith(".devcontainer/"):
            return "", named, []
        return "", "", [f"{path} is not heeded: its build.dockerfile must be a file beside it, in .devcontainer."]
    if asked.image and not IMAGE.fullmatch(asked.image):
        return "", "", [f"{path} is not heeded: its image is no image's name."]
    return asked.image, "", []


def read_devcontainer(text: str) -> Devcontainer:
    """devcontainer.json may have comments and trailing commas. ValueError with a sentence."""
    plain = JSON_WITH_COMMENTS.sub(lambda match: match[1] or "", text)
    try:
        return msgspec.json.decode(plain, type=Devcontainer)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


async def read_patterns(git: Git, mirror: Path, said: dict[str, File]) -> list[str]:
    if MORE_INPUTS not in said or not said[MORE_INPUTS].is_regular:
        return []
    lines = (line.strip() for line in (await read_text(git, mirror, said[MORE_INPUTS])).splitlines())
    return [line for line in lines if line and not line.startswith("#")][:PATTERNS_LIMIT]


async def read_text(git: Git, mirror: Path, file: File) -> str:
    output = await git.run("cat-file", "blob", file.blob, repository=mirror, limit_bytes=FILE_LIMIT_BYTES)
    return output.data.decode(errors="replace")


def no_file(path: str, said: Mapping[str, File]) -> str:
    """Why what is there is not heeded; empty where it is, or where nothing is."""
    if path in said:
        return "" if said[path].is_regular else f"{path} is a link, and so not heeded: make it a file."
    if any(other.startswith(f"{path}/") for other in said):
        return f"{path} is a folder, and so not heeded: make it a file."
    return ""


def is_input(path: str, patterns: Iterable[str]) -> bool:
    folder, _, name = path.rpartition("/")
    if folder.partition("/")[0] in FOLDERS or path in DEVCONTAINERS:
        return True
    return any(fnmatchcase(name, pattern) for pattern in INPUT_NAMES) or any(
        fnmatchcase(path, pattern) for pattern in patterns
    )


def digest(files: Iterable[File]) -> str:
    """Of what they are called and what is in them, by the ids that git gave."""
    found = hashlib.blake2b(digest_size=16)
    for file in sorted(files, key=lambda file: file.path):
        found.update(f"{file.mode} {file.blob} {file.path}\0".encode(errors="surrogateescape"))
    return found.hexdigest()
