"""A checkpoint asks git only when a look finds a change: it must see every change that git would."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.checkpoints import Checkpoints, Look
from sandbox.client import ExecClient
from sandbox.contract import Driver, ExecResult
from tests.contract.test_sandbox import driver_of, git, spec_of

pytestmark = pytest.mark.anyio
SEEDS = range(2)
STEPS = 25
LOOKS_UNTIL_QUIET = 20
"""The clock's tick in which the last file was changed takes 1 to 10 ms to pass."""

TRUTH = """\
known=.git/errand/index
[ -e $known ] && [ ! $known -ot .git/index ] || known=.git/index
cp -p $known /tmp/truth.$$
export GIT_INDEX_FILE=/tmp/truth.$$
git -c advice.addEmbeddedRepo=false add -A --ignore-errors . 2>/dev/null
git write-tree; rm -f $GIT_INDEX_FILE
"""
"""The tree as git makes it from what it knew."""


class Watched:
    """A sandbox, and how often a checkpoint started git in it."""

    def __init__(self, sandbox: ExecClient) -> None:
        self._sandbox = sandbox
        self.asked = 0

    async def look(self, skip: Sequence[str]) -> Look:
        return await self._sandbox.look(skip)

    async def exec(self, command: str, *, environment: dict[str, str], timeout_seconds: float) -> ExecResult:
        self.asked += 1
        return await self._sandbox.exec(command, environment=environment, timeout_seconds=timeout_seconds)

    async def read(self, path: str, limit_bytes: int) -> bytes:
        return await self._sandbox.read(path, limit_bytes)

    async def upload(self, path: str, data: bytes) -> None:
        await self._sandbox.upload(path, data)


class Bench:
    """A workspace whose checkpoints are held against git's own answer."""

    def __init__(self, sandbox: ExecClient, base: str) -> None:
        self.sandbox = sandbox
        self.base = base
        self._watched = Watched(sandbox)
        self._checkpoints = Checkpoints(self._watched)
        self._last = ""

    async def check(self, what: object = "") -> None:
        """That a checkpoint is what git makes."""
        truth = (await self.sandbox.exec(TRUTH)).output.strip()
        assert await self.tree() == truth, what

    async def tree(self) -> str:
        taken = await self._checkpoints.take(self.base, "m", advance=False, unless=self._last)
        self._last = taken.commit
        return taken.tree

    async def until_quiet(self) -> None:
        """Return once a look alone answers."""
        for _ in range(LOOKS_UNTIL_QUIET):
            asked = self._watched.asked
            await self.tree()
            if self._watched.asked == asked:
                return
        raise AssertionError("git is asked each time, although nothing changes")


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=["bubblewrap", "docker", "unsandboxed"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with driver_of(request.param, tmp_path / "data") as driver, on_clone(driver, tmp_path) as bench:
        yield bench


@asynccontextmanager
async def on_clone(driver: Driver, folder: Path) -> AsyncIterator[Bench]:
    source, workspace = folder / "source", folder / "workspace"
    git("init", "-q", "-b", "main", str(source))
    for name, text in {"a": "1\n", "b": "2\n", "c": "3\n", "folder/d": "4\n", ".gitignore": "*.log\nout/\n"}.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text)
    git("-C", str(source), "add", "-A")
    git("-C", str(source), "commit", "-qm", "base")
    git("clone", "-q", "--no-local", str(source), str(workspace))
    sandbox = await driver.start(spec_of(workspace))
    assert isinstance(sandbox, ExecClient)
    try:
        yield Bench(sandbox, git("-C", str(source), "rev-parse", "HEAD"))
    finally:
        await sandbox.stop()


CHANGES = {
    "an untracked file": "echo new > new",
    "the same size and the old time": "touch -r a .git/errand/t; printf '9\\n' > a; touch -r .git/errand/t a",
    "the same size at once again": "printf '8\\n' > a",
    "the mode alone": "chmod +x b",
    "a file gone": "rm c",
    "a file in a folder that was empty": "mkdir -p e/m/p/t/y",
    "and now it is there": "touch e/m/p/t/y/f",
    "a link": "ln -s a link",
    "a link to elsewhere": "ln -sfn b link",
    "another file in its place": "echo 5 > x.log; mv x.log folder/d",
    "an ignored file": "echo 5 > y.log; mkdir out; echo 6 > out/z",
    "ignored no more": "echo nothing > .gitignore",
    "ignored by the repository's own list": "echo 'y.log' >> .git/info/exclude",
    "ignored by the user's list": "mkdir -p ~/.config/git; echo out >> ~/.config/git/ignore",
    "added by force": "git add -f y.log",
    "a commit": "git commit -qam mine",
    "another branch": "git checkout -q -b other HEAD~1",
    "settings that name another list": "git config core.excludesFile /tmp/list; echo new > /tmp/list",
    "that list": "echo nothing > /tmp/list",
    "a repository inside": "git init -q sub; git -C sub commit -q --allow-empty -m x",
    "a commit in there": "git -C sub commit -q --allow-empty -m y",
}


async def test_every_kind_of_change_is_seen(bench: Bench) -> None:
    await bench.until_quiet()
    for kind, command in CHANGES.items():
        changed = await bench.sandbox.exec(command)
        assert changed.exit_code == 0, f"{kind}: {changed.output}"
        for _ in range(2):  # by git, and perhaps by a look
            await bench.check(kind)


NAMES = ("a", "b", "folder/d", "folder/e", "new", "x.log", "out/z", "deep/er/f", ".gitignore", "link")
MOVES = (
    "printf %s {text} > {name}",
    "touch -r {name} /tmp/t; printf %s {text} > {name}; touch -r /tmp/t {name}",
    "rm -rf {name}",
    "mv -f {name} {other}",
    "ln -f {name} {other}",
    "ln -sfn {other} {name}",
    "chmod +x {name}",
    "chmod -x {name}",
    "mkdir -p {name}.d",
    "echo {other} >> .gitignore",
    "echo {other} >> .git/info/exclude",
    "git add -f {name}",
    "git rm -rq --cached {name}",
    "git commit -qam {text}",
    "git stash -q",
    "git reset -q --hard",
    ":",
    ":",
)


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_any_changes_a_checkpoint_has_the_tree_that_git_makes(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    done: list[str] = []
    async with driver_of("unsandboxed", tmp_path / "data") as driver, on_clone(driver, tmp_path) as bench:
        for _ in range(STEPS):
            name, other = chance.sample(NAMES, 2)
            move = chance.choice(MOVES).format(name=name, other=other, text=chance.choice(("1", "2", "33")))
            done.append(move)
            await bench.sandbox.exec(f"mkdir -p $(dirname {name}) $(dirname {other}); {move}")
            for _ in range(chance.randrange(1, 4)):
                await bench.check(f"seed {seed}: {done}")
        await bench.until_quiet()


async def test_folders_that_git_ignores_are_not_walked_when_they_are_large(bench: Bench) -> None:
    await bench.sandbox.exec("mkdir -p out/{1..6}; (cd out; for d in *; do touch $d/{1..2000}; done)")
    await bench.until_quiet()
    await bench.sandbox.exec("echo more > out/1/more")
    await bench.until_quiet()
    await bench.check()
    before = await bench.tree()
    await bench.sandbox.exec("git add -f out/1/more")
    await bench.check()
    assert await bench.tree() != before
    for change in ("rm -r out/[2-6] out/1/???*; echo nothing > .gitignore", "echo seen > out/1/1"):
        await bench.sandbox.exec(change)
        await bench.check()


async def test_pipes_in_the_place_of_what_is_read_hold_up_nothing(bench: Bench) -> None:
    await bench.until_quiet()
    await bench.sandbox.exec("rm -f ~/.gitconfig .git/errand/now; mkfifo .git/errand/now; mkfifo ~/.config || true")
    await bench.check()


async def test_a_checkpoint_that_was_killed_leaves_what_the_next_one_goes_on_from(bench: Bench) -> None:
    await bench.check()
    await bench.sandbox.exec(": > .git/errand/last; echo half > .git/errand/new; touch .git/errand/index.lock")
    await bench.sandbox.exec("mkdir -p .git/refs/errand; cd .git; touch errand/bundle.lock refs/errand/checkpoint.lock")
    await bench.sandbox.exec("echo 7 > a; ln .git/index .git/before; cp .git/index /tmp/before")
    await bench.check()
    await bench.sandbox.exec("cd .git; touch errand/advancing HEAD.lock refs/heads/main.lock")
    await bench.sandbox.checkpoint(bench.base, "m", advance=True)
    # The commit's index came whole, in the place of the one before, which nobody wrote into.
    replaced = await bench.sandbox.exec("cmp .git/before /tmp/before && [ ! .git/before -ef .git/index ]")
    assert replaced.exit_code == 0, replaced.output
