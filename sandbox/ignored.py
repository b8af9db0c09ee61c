"""The files that git ignores, as a tar that the sandbox's own tar makes: beside a checkpoint's commits and never in
them, for a branch is made of those."""

from __future__ import annotations

import re

from sandbox.checkpoints import CHECKPOINT_SECONDS, GIT_ENVIRONMENT, PREPARE, Shell
from sandbox.contract import Ignored, SandboxError
from sandbox.left_out import LOG_LIMIT_BYTES
from sandbox.limits import MIB

SETTING = "ERRAND_SANDBOX_IGNORED_MIB"
TAR_PATH = "/workspace/.git/errand/ignored.tar"

# Files are read whole each time: their times are the agent's to set.
PACK = (
    PREPARE
    + """\
command -v tar >/dev/null || { echo "tar is needed to keep the files that git ignores"; exit 1; }
[ ! -e "$mine/index" ] || export GIT_INDEX_FILE="$mine/index"
git ls-files -z --others --ignored --exclude-standard >"$mine/ignored.list"
if [ ! -s "$mine/ignored.list" ]; then echo "errand:0 none"; exit 0; fi
tar --create --sort=name --null --verbatim-files-from --files-from "$mine/ignored.list" 2>"$mine/ignored.log" |
    head -c "$((limit + 1))" >"$mine/ignored.tar"
read -r print _ <<END
$(sha256sum "$mine/ignored.tar")
END
echo "errand:$(wc -c <"$mine/ignored.tar") $print"
grep 'Cannot open:' "$mine/ignored.log" | head -c "$log_limit" || :
"""
)
UNPACK = (
    PREPARE
    + """\
git clean -ffdqX
tar --extract --preserve-permissions --file "$mine/ignored.tar"
rm "$mine/ignored.tar"
"""
)
"""What a set-up left goes first: the task may have taken some of it away."""

ANSWER = re.compile(r"^errand: *([0-9]+) (none|[0-9a-f]{64})$", re.MULTILINE)
UNREADABLE = re.compile(r"^tar: (.+): Cannot open: ", re.MULTILINE)


async def pack(shell: Shell, limit_bytes: int, unless: str) -> Ignored:
    """See `Sandbox.ignored`. SandboxError with git's or tar's words."""
    answer = ANSWER.search(output := await _run(shell, PACK, f"limit={limit_bytes}\nlog_limit={LOG_LIMIT_BYTES}\n"))
    if answer is None:
        raise SandboxError(f"packing what git ignores gave no answer: {output[-2000:]}")
    size, found = int(answer[1]), answer[2]
    if found == "none":
        return Ignored()
    if size > limit_bytes:
        return Ignored(left_out=(f"what git ignores: it is more than the {limit_bytes // MIB} MiB of {SETTING}",))
    left_out = tuple(f"{name}: it cannot be read" for name in UNREADABLE.findall(output[answer.end() :]))
    return Ignored(print=found, tar=b"" if found == unless else await _read(shell, limit_bytes), left_out=left_out)


async def unpack(shell: Shell, tar: bytes) -> None:
    """See `Sandbox.restore_ignored`."""
    await shell.upload(TAR_PATH, tar)
    await _run(shell, UNPACK, "")


async def _read(shell: Shell, limit_bytes: int) -> bytes:
    try:
        return await shell.read(TAR_PATH, limit_bytes)
    except OSError as error:  # as a command that takes it away meanwhile
        raise SandboxError(f"what git ignores cannot be read: {error}") from error


async def _run(shell: Shell, script: str, variables: str) -> str:
    result = await shell.exec(variables + script, environment=GIT_ENVIRONMENT, timeout_seconds=CHECKPOINT_SECONDS)
    if result.exit_code != 0:
        raise SandboxError(f"what git ignores cannot be kept ({result.ending}): {result.output[-2000:]}")
    return result.output
