"""A real package with one broken function: its sdist made a bare git repository, its own tests to tell of the fault."""

from __future__ import annotations

import ast
import hashlib
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tests.missing import missing

NAME, VERSION = "pyasn1", "0.6.1"
"""Pure Python, tested by unittest: 1,179 tests in one second."""
SHA256 = "6f580d2bdd84365380830acf45550f2511469f673cb4a5ae3857a3170128b034"
TEST_COMMAND = "python3 -B -m unittest"
SUITE_SECONDS = 20.0
MEMORY_LIMIT_KIB = 2_000_000
"""A broken function may build a list without end."""
FAULTS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", "<"),
    ast.In: ("in", "not in"),
    ast.Is: ("is", "is not"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
}


class Fault(Struct, frozen=True):
    """One token of one function that says something else than its author wrote."""

    file: str
    function: str
    line: int
    column: int
    """From 0."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}: `{self.old}` became `{self.new}`"

    def put_into(self, package: Path) -> None:
        path = package / self.file
        lines = path.read_text().splitlines(keepends=True)
        line = lines[self.line - 1]
        assert line[self.column :].startswith(self.old)
        lines[self.line - 1] = line[: self.column] + self.new + line[self.column + len(self.old) :]
        path.write_text("".join(lines))


class Broken(Struct, frozen=True):
    """A bare repository of one commit, in which the package's tests fail."""

    repository: Path
    base: str
    fault: Fault


def broken_package(folder: Path, seed: int) -> Broken:
    """In `folder`; the fault is the seed's first that the package's tests notice, and end with."""
    work = folder / NAME
    unpack(fetch(), work)
    original = {path: path.read_text() for path in work.rglob("*.py")}
    possible = faults(work)
    chance = random.Random(seed)
    while True:
        fault = chance.choice(possible[chance.choice(sorted(possible))])
        fault.put_into(work)
        if suite_passes(work) is False:
            repository = folder / f"{NAME}.git"
            return Broken(repository, commit(work, repository), fault)
        path = work / fault.file
        path.write_text(original[path])


def fetch() -> Path:
    """The sdist, as pip finds it; kept from one run to the next."""
    folder = Path(tempfile.gettempdir()) / f"errand-test-packages-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{NAME}-{VERSION}.tar.gz"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        download(folder)
    return path


def download(folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{NAME}=={VERSION} --hash=sha256:{SHA256}\n")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    asked = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--no-binary", NAME),
            *("--require-hashes", "--requirement", requirements, "--dest", folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        message = f"pip cannot download {NAME} {VERSION}: {asked.stderr.strip()[-500:]}"
        missing(message)


def unpack(sdist: Path, folder: Path) -> None:
    with tarfile.open(sdist) as archive:
        for member in archive:
            if member.isfile():
                path = folder / Path(member.name).relative_to(f"{NAME}-{VERSION}")
                path.parent.mkdir(parents=True, exist_ok=True)
                file = archive.extractfile(member)
                assert file is not None
                path.write_bytes(file.read())


def faults(package: Path) -> dict[str, list[Fault]]:
    """Every fault that this file can put into the package, by function."""
    found: dict[str, list[Fault]] = {}
    for path in sorted((package / NAME).rglob("*.py")):
        source, file = path.read_text(), str(path.relative_to(package))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                for line, column, old, new in places(source, node):
                    fault = Fault(file, node.name, line, column, old, new)
                    found.setdefault(f"{file}:{node.lineno}", []).append(fault)
    return found


def places(source: str, function: ast.FunctionDef) -> Iterator[tuple[int, int, str, str]]:
    """Line, column, what is there and what could be; of operators that stand with both operands on one line."""
    lines = source.splitlines()
    for node in (part for statement in function.body for part in ast.walk(statement)):
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                pass
            case ast.BoolOp(op=operator, values=[left, right, *_]) | ast.BinOp(left=left, op=operator, right=right):
                pass
            case ast.Constant(value=bool() as value):
                yield node.lineno, node.col_offset, str(value), str(not value)
                continue
            case ast.Constant(value=int() as value) if lines[node.lineno - 1][node.col_offset :].startswith(str(value)):
                yield node.lineno, node.col_offset, str(value), str(value + 1)
                continue
            case _:
                continue
        if type(operator) in FAULTS and left.end_lineno == right.lineno:
            old, new = FAULTS[type(operator)]
            column = lines[right.lineno - 1].index(old, left.end_col_offset, right.col_offset)
            yield right.lineno, column, old, new


def suite_passes(package: Path) -> bool | None:
    """By the package's own tests; None when they come to no end."""
    limited = f"ulimit -v {MEMORY_LIMIT_KIB}; exec {TEST_COMMAND.replace('python3', sys.executable)}"
    try:
        ran = subprocess.run(
            ["bash", "-c", limited], cwd=package, timeout=SUITE_SECONDS, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return ran.returncode == 0


def commit(work: Path, repository: Path) -> str:
    """Make a bare repository of the folder; returns its only commit."""
    author = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
    committer = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"}
    for command in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], ["commit", "-q", "-m", f"{NAME} {VERSION}"]):
        subprocess.run(["git", *command], cwd=work, check=True, env={**os.environ, **author, **committer})
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(repository)], check=True)
    return git(repository, "rev-parse", "main")


def git(repository: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return ran.stdout.strip()
