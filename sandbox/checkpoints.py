"""The workspace as git commits, made by the sandbox's own git: the host never runs git in a tree an agent wrote."""

from __future__ import annotations

import re
import shlex
from typing import Protocol

import anyio

from sandbox.contract import BUNDLE_LIMIT_BYTES, Checkpoint, ExecResult, SandboxError

CHECKPOINT_SECONDS = 300.0
BUNDLE_PATH = "/workspace/.git/errand/bundle"
INCOMING_PATH = "/workspace/.git/errand/incoming"
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
for left in "$mine/index.lock" "$mine/bundle"; do [ ! -e "$left" ] || rm -f "$left"; done
"""

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
[ ! -e "$mine/last" ] || read -r last_head last_commit last_tree <"$mine/last"

# One file that cannot be read, or a nested repository without a commit, must not cost the rest.
git add -A --ignore-errors . >"$mine/add.log" 2>&1 || :
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
    git update-ref -m "errand: checkpoint" HEAD "$commit" "$head"
    head=$commit
    cp -p "$mine/index" .git/index
fi
if [ "$commit" != "$unless" ] && [ "$commit $head" != "$base $base" ]; then
    printf 'update refs/errand/checkpoint %s\\nupdate refs/errand/head %s\\n' "$commit" "$head" | git update-ref --stdin
    if [ -n "$(git rev-list -n 1 "$commit" "$head" "^$base")" ]; then
        git bundle create -q "$mine/bundle" refs/errand/checkpoint refs/errand/head "^$base"
        bundle=yes
    fi
fi
if [ "$head $commit $tree" != "$last_head $last_commit $last_tree" ]; then
    echo "$head $commit $tree" >"$mine/last"
fi
[ "$mine/index" -ef "$mine/seen" ] || ln -f "$mine/index" "$mine/seen"
echo "errand:$head $commit $tree ${bundle:-no}"
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


class Shell(Protocol):
    """What a checkpoint needs of a sandbox."""

    async def exec(self, command: str, *, environment: dict[str, str], timeout_seconds: float) -> ExecResult: ...

    async def read(self, path: str, limit_bytes: int) -> bytes: ...

    async def upload(self, path: str, data: bytes) -> None: ...


class Checkpoints:
    """Takes and restores the checkpoints of one workspace, one at a time."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._lock = anyio.Lock()

    async def take(self, base: str, message: str, *, advance: bool, unless: str) -> Checkpoint:
        """See `Sandbox.checkpoint`. SandboxError with git's words when the workspace's repository is broken."""
        check_commit(base)
        variables = {"base": base, "message": message, "advance": "1" if advance else "", "unless": unless}
        async with self._lock:
            output = await self._run(TAKE, variables)
            answer = ANSWER.search(output)
            if answer is None:
                raise SandboxError(f"the checkpoint's git gave no answer: {output[-2000:]}")
            head, commit, tree, bundled = answer.groups()
            bundle = await self._shell.read(BUNDLE_PATH, BUNDLE_LIMIT_BYTES) if bundled == "yes" else b""
        return Checkpoint(head=head, commit=commit, tree=tree, bundle=bundle)

    async def check_out(self) -> None:
        """See `Sandbox.check_out`."""
        async with self._lock:
            await self._run("git -c checkout.workers=0 reset --quiet --hard", {})

    async def restore(self, checkpoint: Checkpoint) -> None:
        """See `Sandbox.restore`."""
        for commit in (checkpoint.head, checkpoint.commit, checkpoint.tree):
            check_commit(commit)
        variables = {"head": checkpoint.head, "commit": checkpoint.commit, "tree": checkpoint.tree}
        async with self._lock:
            if checkpoint.bundle:
                await self._shell.upload(INCOMING_PATH, checkpoint.bundle)
            await self._run(RESTORE, variables)

    async def _run(self, script: str, variables: dict[str, str]) -> str:
        assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        result = await self._shell.exec(
            assignments + script, environment=GIT_ENVIRONMENT, timeout_seconds=CHECKPOINT_SECONDS
        )
        if result.exit_code != 0:
            raise SandboxError(f"git failed in the workspace ({result.ended_by}): {result.output[-2000:]}")
        return result.output


def check_commit(commit: str) -> None:
    if not COMMIT_ID.fullmatch(commit):
        raise SandboxError(f"{commit!r} is not a full commit id")
