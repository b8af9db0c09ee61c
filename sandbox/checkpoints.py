"""The workspace as git commits, made by the sandbox's own git: the host never runs git in a tree an agent wrote."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Protocol

import anyio
import msgspec
from msgspec import Struct

from sandbox.contract import BUNDLE_LIMIT_BYTES, Checkpoint, ExecResult, SandboxError
from sandbox.left_out import LOG_LIMIT_BYTES, left_out

CHECKPOINT_SECONDS = 300.0
BUNDLE_PATH = "/workspace/.git/errand/bundle"
INCOMING_PATH = "/workspace/.git/errand/incoming"
IGNORED_PATH = "/workspace/.git/errand/ignored"
IGNORED_LIMIT_BYTES = 256 * 1024
COMMIT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Errand",
    "GIT_AUTHOR_EMAIL": "errand@localhost",
    "GIT_COMMITTER_NAME": "Errand",
    "GIT_COMMITTER_EMAIL": "errand@localhost",
    "GIT_TERMINAL_PROMPT": "0",
    # The repository's own hooks and monitors would run at every checkpoint, for nothing.
    "GIT_CONFIG_COUNT": "4",
    "GIT_CONFIG_KEY_0": "core.hooksPath",
    "GIT_CONFIG_VALUE_0": "/dev/null",
    "GIT_CONFIG_KEY_1": "core.fsmonitor",
    "GIT_CONFIG_VALUE_1": "false",
    "GIT_CONFIG_KEY_2": "gc.auto",
    "GIT_CONFIG_VALUE_2": "0",
    "GIT_CONFIG_KEY_3": "advice.addEmbeddedRepo",
    "GIT_CONFIG_VALUE_3": "false",
}

GITCONFIG = """\
[user]
	name = Errand
	email = errand@localhost
[init]
	defaultBranch = main
[safe]
	directory = *
"""
"""The git settings of a sandbox: who commits, and that the workspace may belong to another uid."""

PREPARE = """\
set -eu
mine=.git/errand
[ -d "$mine" ] || mkdir -p "$mine"
for left in "$mine/index.lock" "$mine/bundle" "$mine/bundle.lock" .git/refs/errand/*.lock; do
    [ ! -e "$left" ] || rm -f "$left"
done
if [ -e "$mine/advancing" ]; then
    find .git/HEAD.lock .git/refs/heads -name '*.lock' -exec rm {} + 2>/dev/null || :
    rm "$mine/advancing"
fi
"""
"""One that was cut off, as by its runner's end, leaves the locks that its git held then."""

TAKE = (
    PREPARE
    + """\
# An index of our own leaves the user's alone and keeps git's stat cache from one checkpoint to the next. It starts
# again from the user's when that is newer: a commit, a switched branch or a forced `git add` may have made ours
# wrong. The copy keeps the time of writing, by which git knows which files may have changed in the same instant.
if [ -e .git/index ] && { [ ! -e "$mine/index" ] || [ "$mine/index" -ot .git/index ]; }; then
    cp -p .git/index "$mine/new" && mv "$mine/new" "$mine/index"
fi
export GIT_INDEX_FILE="$mine/index"

# Git's own start is most of an unchanged checkpoint, so what a shell can read it reads.
read -r head <.git/HEAD
case $head in "ref: "*) if [ -e ".git/${head#ref: }" ]; then read -r head <".git/${head#ref: }"; fi ;; esac
case $head in "ref: "*) head=$(git rev-parse --verify -q HEAD) || { echo "HEAD points to no commit"; exit 1; } ;; esac
last_commit= last_head= last_tree=
[ ! -e "$mine/last" ] || read -r last_head last_commit last_tree <"$mine/last" || : # killed as it was written: empty

# One file that cannot be read, or a nested repository without a commit, must not cost the rest: then this ends with 1.
# With another code nothing was added at all.
git add -A --ignore-errors . >"$mine/add.log" 2>&1 || [ $? -eq 1 ] || { cat "$mine/add.log"; exit 1; }
# Git replaces an index that it changes: the same inode is the same tree.
if [ -n "$last_tree" ] && [ "$mine/index" -ef "$mine/seen" ]; then
    tree=$last_tree
else
    tree=$(git write-tree) || { cat "$mine/add.log"; exit 1; }
fi

if [ "$head $tree" = "$last_head $last_tree" ] && { [ -z "$advance" ] || [ "$last_commit" = "$head" ]; }; then
    commit=$last_commit
elif [ "$tree" = "$(git rev-parse "$head^{tree}")" ]; then
    commit=$head
else
    commit=$(git commit-tree "$tree" -p "$head" -m "$message")
fi
if [ -n "$advance" ] && [ "$commit" != "$head" ]; then
    : >"$mine/advancing"
    git update-ref -m "errand: checkpoint" HEAD "$commit" "$head"
    rm "$mine/advancing"
    head=$commit
    # By a rename: half an index would be what the next checkpoint starts from, were we killed now.
    cp -p "$mine/index" "$mine/new" && mv "$mine/new" .git/index
fi
if [ "$commit" != "$unless" ] && [ "$commit $head" != "$base $base" ]; then
    printf 'update refs/errand/checkpoint %s\\nupdate refs/errand/head %s\\n' "$commit" "$head" | git update-ref --stdin
    beyond=$(git rev-list -n 1 "$commit" "$head" "^$base") ||
        { echo "the repository no longer has the commit that the task started from"; exit 1; }
    if [ -n "$beyond" ]; then
        git bundle create -q "$mine/bundle" refs/errand/checkpoint refs/errand/head "^$base"
        bundle=yes
    fi
fi
if [ "$head $commit $tree" != "$last_head $last_commit $last_tree" ]; then
    echo "$head $commit $tree" >"$mine/last"
fi
if [ -n "$list_ignored" ]; then
    git status -z -unormal --ignored=matching | head -c "$list_ignored" >"$mine/ignored"
fi
[ "$mine/index" -ef "$mine/seen" ] || ln -f "$mine/index" "$mine/seen"
echo "errand:$head $commit $tree ${bundle:-no}"
[ ! -s "$mine/add.log" ] || head -c "$log_limit" "$mine/add.log"
"""
)

RESTORE = (
    PREPARE
    + """\
if [ -e "$mine/incoming" ]; then
    git bundle unbundle "$mine/incoming" >/dev/null
    rm -f "$mine/incoming"
fi
rm -f "$mine/index" "$mine/seen"
git read-tree --reset -u "$commit"
git update-ref -m "errand: restore" HEAD "$head"
[ "$commit" = "$head" ] || git reset -q
printf 'update refs/errand/checkpoint %s\\nupdate refs/errand/head %s\\n' "$commit" "$head" | git update-ref --stdin
echo "$head $commit $tree" >"$mine/last"
"""
)

ANSWER = re.compile(r"^errand:([0-9a-f]{40,64}) ([0-9a-f]{40,64}) ([0-9a-f]{40,64}) (yes|no)$", re.MULTILINE)


class Look(Struct, frozen=True):
    """What `exec_server.Look` found."""

    print: str = ""
    certain: bool = False
    crowded: bool = False


class Shell(Protocol):
    """What a checkpoint needs of a sandbox."""

    async def look(self, skip: Sequence[str]) -> Look: ...

    async def exec(self, command: str, *, environment: dict[str, str], timeout_seconds: float) -> ExecResult: ...

    async def read(self, path: str, limit_bytes: int) -> bytes: ...

    async def upload(self, path: str, data: bytes) -> None: ...


class Checkpoints:
    """Takes and restores the checkpoints of one workspace, one at a time. Git is only asked when a look at the files'
    times finds a change since it was last asked, or cannot tell."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._lock = anyio.Lock()
        self._last: Checkpoint | None = None
        """Of git, without its bundle."""
        self._seen = Look()
        """What there was before git made that."""
        self._ignored: tuple[str, ...] = ()
        """Folders that git does not look into; only asked for where they hold many files."""
        self._lists_ignored = False

    async def take(self, base: str, message: str, *, advance: bool, unless: str) -> Checkpoint:
        """See `Sandbox.checkpoint`. SandboxError with git's words when the workspace's repository is broken."""
        check_commit(base)
        async with self._lock:
            seen = await self._shell.look(self._ignored)
            is_same = self._seen.certain and seen.print == self._seen.print
            if is_same and self._last and needs_nothing(self._last, base, advance=advance, unless=unless):
                return self._last
            self._lists_ignored = self._lists_ignored or seen.crowded
            taken = await self._ask_git(base, message, advance=advance, unless=unless)
            self._last, self._seen = msgspec.structs.replace(taken, bundle=b""), seen
            if self._lists_ignored:
                await self._read_ignored()
        return taken

    async def _ask_git(self, base: str, message: str, *, advance: bool, unless: str) -> Checkpoint:
        variables = {
            "base": base,
            "message": message,
            "advance": "1" if advance else "",
            "unless": unless,
            "list_ignored": str(IGNORED_LIMIT_BYTES) if self._lists_ignored else "",
            "log_limit": str(LOG_LIMIT_BYTES),
        }
        output = await self._run(TAKE, variables)
        answer = ANSWER.search(output)
        if answer is None:
            raise SandboxError(f"the checkpoint's git gave no answer: {output[-2000:]}")
        head, commit, tree, bundled = answer.groups()
        bundle = await self._read(BUNDLE_PATH, BUNDLE_LIMIT_BYTES) if bundled == "yes" else b""
        said = output[answer.end() :]
        return Checkpoint(head=head, commit=commit, tree=tree, bundle=bundle, left_out=left_out(said))

    async def check_out(self) -> None:
        """See `Sandbox.check_out`."""
        async with self._lock:
            await self._run("git -c checkout.workers=0 reset --quiet --hard", {})

    async def _read_ignored(self) -> None:
        """What was seen counts only if git still ignores what was not looked into."""
        listed = await self._read(IGNORED_PATH, IGNORED_LIMIT_BYTES)
        ignored = tuple(ignored_folders(listed))
        if ignored != self._ignored:
            self._ignored, self._seen = ignored, Look()

    async def restore(self, checkpoint: Checkpoint) -> None:
        """See `Sandbox.restore`."""
        for commit in (checkpoint.head, checkpoint.commit, checkpoint.tree):
            check_commit(commit)
        variables = {"head": checkpoint.head, "commit": checkpoint.commit, "tree": checkpoint.tree}
        async with self._lock:
            self._last, self._seen = None, Look()
            if checkpoint.bundle:
                await self._shell.upload(INCOMING_PATH, checkpoint.bundle)
            await self._run(RESTORE, variables)

    async def _read(self, path: str, limit_bytes: int) -> bytes:
        try:
            return await self._shell.read(path, limit_bytes)
        except OSError as error:  # as a `.git` that is a link, or a command that takes away what git has just made
            raise SandboxError(f"what git made cannot be read: {error}") from error

    async def _run(self, script: str, variables: dict[str, str]) -> str:
        assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        result = await self._shell.exec(
            assignments + script, environment=GIT_ENVIRONMENT, timeout_seconds=CHECKPOINT_SECONDS
        )
        if result.exit_code != 0:
            raise SandboxError(f"git failed in the workspace ({result.ending}): {result.output[-2000:]}")
        return result.output


def needs_nothing(last: Checkpoint, base: str, *, advance: bool, unless: str) -> bool:
    """Whether a checkpoint of the same files as `last` has to make no commit and no bundle."""
    if advance and last.commit != last.head:
        return False
    return last.commit == unless or last.commit == last.head == base


def ignored_folders(status: bytes) -> Iterator[str]:
    """Out of what `git status -z` says. What comes after the last NUL was cut off."""
    for entry in status.split(b"\0")[:-1]:
        if entry.startswith(b"!! ") and entry.endswith(b"/"):
            yield os.fsdecode(entry[3:-1])


def check_commit(commit: str) -> None:
    if not COMMIT_ID.fullmatch(commit):
        raise SandboxError(f"{commit!r} is not a full commit id")
