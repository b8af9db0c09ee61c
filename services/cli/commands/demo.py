from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click
from msgspec import Struct

from services.cli.failure import Failure

FOLDER = ".errand-demo"
DATA = "data"
"""Apart from the repository: nobody's task may name what is in a data folder."""
REPOSITORY = "repository.git"
PROMPT = (
    "Look around in this repository, run something harmless, and add one file, ERRAND.md, that says what you found."
)
QUICK = {"ERRAND_SANDBOX_BUILD": "0"}
"""A sandbox image that is missing takes minutes: the demo's task runs in what is there."""
GIT_SECONDS = 600.0
BY_TOOL = """\
SELECT coalesce(tool, kind) AS step, count(*) AS times, round(sum(duration_seconds), 3) AS seconds,
       count(*) FILTER (outcome <> 'ok') AS failed
FROM steps WHERE task_id = '{task}' GROUP BY ALL ORDER BY times DESC, step"""
COST = """\
SELECT outcome, round(cost_usd, 4) AS cost_usd, input_tokens + cache_read_tokens + cache_write_tokens AS tokens_in,
       output_tokens AS tokens_out, files_changed, insertions, deletions
FROM turns WHERE task_id = '{task}'"""


class Source(Struct, frozen=True, kw_only=True):
    """What the demo's task works on."""

    repository: str
    """As the task names it."""
    remote: str
    """Where git finds the pushed branch."""
    about: str


@click.command("demo")
def command() -> int:
    """See a whole task on real parts, in a folder of its own.

    Everything is started in .errand-demo, works on a bare clone of REPO (by default of the repository you stand in),
    and is stopped again. PUSH=1 pushes the branch to REPO itself. PROMPT says what to do.
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _like_ctrl_c)
    signal.signal(signal.SIGHUP, _like_ctrl_c)
    folder = _fresh(Path.cwd() / FOLDER)
    source = _source(folder, os.environ.get("REPO", ""), push=os.environ.get("PUSH") == "1")
    _say(source.about)
    if os.environ.get("ANTHROPIC_API_KEY"):
        _say("ANTHROPIC_API_KEY is set: the model is Claude, and the task costs money.")
    else:
        _say("There is no ANTHROPIC_API_KEY: the model is scripted, not Claude. Everything else is real.")
    _title("Starting")
    from services.cli.house import running

    try:
        with running(folder / DATA, {**os.environ, **QUICK}) as ready:
            _say(f"Every service takes work after {ready.seconds:.1f} s, at {ready.server}.")
            _show_task(folder / DATA, source, os.environ.get("PROMPT") or PROMPT)
            stopping = time.monotonic()
            _title("Stopping")
    except KeyboardInterrupt:
        _say("\nInterrupted. Everything that was started has stopped.")
        raise
    ended = time.monotonic()
    _say(f"Everything that was started has stopped ({ended - stopping:.1f} s; {ended - began:.1f} s in all).")
    _say(f"What it wrote is in {FOLDER}, and may be removed.")
    click.echo("\nYour own: `errand up` starts Errand and shows a link for your phone,")
    click.echo('then `errand submit "what to do" --repo URL` sends a task from here.')
    return 0


def _show_task(data: Path, source: Source, prompt: str) -> None:
    """Submit, watch, and prove what came of it. Failure where something did not hold."""
    from protocol.live import Submit
    from services.cli.account import stored
    from services.cli.api import Api
    from services.cli.receipts import new_key
    from services.cli.watching import run

    account = stored(data)
    if account is None:
        raise Failure(f"`errand up` left no account in {data}: this is a defect, please report it.")
    _title("The task, live")
    frame = Submit(key=new_key(), prompt=prompt, repository=source.repository, title="The demo")
    task, seen = run(account, partial(_follow, frame=frame))
    with Api(account) as api:
        _show_diff(api, task)
        _show_branch(api, source, task)
        for title, sql in (("SQL: steps by tool", BY_TOOL), ("SQL: the cost", COST)):
            _title(title)
            _show_rows(api, sql.format(task=task), seen)


async def _follow(session, *, frame) -> tuple[str, int]:
    from protocol.task import TaskState
    from services.cli.following import follow
    from services.cli.receipts import carry_out
    from services.cli.screen import choose

    done = await carry_out(session, frame)
    outcome = await follow(session, done.task, choose(as_json=False), interactive=False)
    if outcome is not TaskState.SUCCEEDED:
        raise Failure(f"The demo's task {outcome.value}: what it says above is the reason.")
    return done.task, session.seen


def _show_diff(api, task: str) -> None:
    from protocol.repo import Diff
    from services.cli.api import path, read
    from services.cli.commands.diff import print_diff

    _title("The diff")
    diff = read(api.get(path("tasks", task, "diff")), Diff)
    if not diff.text:
        raise Failure("The task says it changed something, but its diff is empty.")
    print_diff(diff)


def _show_branch(api, source: Source, task: str) -> None:
    """Ask the remote itself, not Errand."""
    from typing import Any

    from services.cli.api import path, read
    from services.cli.tasks import task_of
    from services.cli.text import clean

    _title("The pushed branch")
    published = task_of(read(api.get(path("tasks", task)), dict[str, Any])).published
    if published is None:
        raise Failure("The task has pushed nothing.")
    listed = _git("ls-remote", "--", source.remote, f"refs/heads/{published.branch}")
    if listed.split("\t")[0] != published.commit:
        raise Failure(f"{source.remote} does not have {published.branch} at {published.commit}: it answers {listed!r}.")
    click.echo(f"$ git ls-remote {source.remote} {published.branch}\n{clean(listed)}")
    if Path(source.remote).is_dir():
        shown = _git("-C", source.remote, "log", "-2", "--format=%h %an: %s", published.commit)
        click.echo(f"$ git log -2 {published.branch}\n{clean(shown)}")


def _show_rows(api, sql: str, seen: int) -> None:
    from protocol.history import SqlAnswer
    from services.cli.api import path, read
    from services.cli.tables import print_table

    answer = read(api.post(path("sql"), {"sql": sql, "at_least": seen, "limit": 100}), SqlAnswer)
    if not answer.rows or answer.sequence < seen:
        raise Failure(f"The history has no row of this task, though it has reached {answer.sequence} of {seen}.")
    click.echo(click.style(sql, dim=True))
    print_table(answer.columns, [list(row) for row in answer.rows])


def _fresh(folder: Path) -> Path:
    """The demo's data folder, empty. One that is not a demo's, or is in use, is left alone."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / REPOSITORY).exists() and not (folder / DATA).exists():
            raise Failure(f"{folder} is not the folder of a demo: move it away.")
        _refuse_while_used(folder / DATA / "lock")
        shutil.rmtree(folder)
    (folder / DATA).mkdir(mode=0o700, parents=True)
    return folder


def _refuse_while_used(lock: Path) -> None:
    if not lock.exists():
        return
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"A demo runs here already (process {file.read().strip()}): wait for it or stop it."
            ) from None


def _source(folder: Path, asked: str, *, push: bool) -> Source:
    """A bare clone in the data folder to push to; only with PUSH=1 the repository that was asked for."""
    if asked and push:
        from services.cli import repository

        url = repository.choose(asked, Path.cwd())
        return Source(repository=url, remote=url, about=f"The branch is pushed to {url} (PUSH=1).")
    clone = folder / REPOSITORY
    origin = asked or _checkout()
    if origin:
        _git("clone", "--bare", "--quiet", "--", origin, str(clone))
        _name_head(clone)
        about = f"The task works on a bare clone of {origin}, {FOLDER}/{REPOSITORY}. Nothing else is pushed to."
    else:
        _make_sample(folder, clone)
        about = f"There is no repository with a commit here: the task works on a small sample, {FOLDER}/{REPOSITORY}."
    return Source(repository=str(clone), remote=str(clone), about=about)


def _name_head(clone: Path) -> None:
    """A checkout of a tag or a commit has no branch to start from: the clone gets one."""
    commit = _git("-C", str(clone), "rev-parse", "--verify", "HEAD^{commit}")
    try:
        _git("-C", str(clone), "symbolic-ref", "--quiet", "HEAD")
    except Failure:
        _git("-C", str(clone), "branch", "--force", "errand-demo", commit)
        _git("-C", str(clone), "symbolic-ref", "HEAD", "refs/heads/errand-demo")


def _checkout() -> str:
    """The repository around the working directory, if it has a commit."""
    try:
        _git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return _git("rev-parse", "--show-toplevel")
    except Failure:
        return ""


def _make_sample(folder: Path, clone: Path) -> None:
    tree = folder / "sample"
    _git("init", "--quiet", "--initial-branch=main", str(tree))
    (tree / "README.md").write_text("# A sample\n\nIt adds numbers.\n")
    (tree / "add.py").write_text("def add(a, b):\n    return a + b\n")
    _git("-C", str(tree), "add", "-A")
    who = ("-c", "user.name=Errand", "-c", "user.email=errand@localhost", "-c", "commit.gpgsign=false")
    _git("-C", str(tree), *who, "commit", "--quiet", "-m", "A sample")
    _git("clone", "--bare", "--quiet", "--", str(tree), str(clone))
    shutil.rmtree(tree)


def _git(*arguments: str) -> str:
    """What git prints. Failure with its last line."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=GIT_SECONDS,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except FileNotFoundError:
        raise Failure("There is no git: install it, for example by `apt install git`.") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"`git {arguments[0]}` took longer than {GIT_SECONDS:.0f} s.") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise Failure(f"`git {arguments[0]}` failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()


def _like_ctrl_c(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _title(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}\n{'─' * len(text)}")
    sys.stdout.flush()


def _say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()
