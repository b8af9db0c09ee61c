"""What of the work is in no checkpoint: the user and the agent are told."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.journal import Noticed
from sandbox.contract import ExecResult
from services.runner.log import TaskLog
from services.runner.refusals import with_lines

LEFT_OUT = "Not saved: {}."
FAILED = "The work cannot be saved, and is lost if its sandbox ends: {}"


class Unsaved:
    """Of one attempt. Nothing is told twice, but a checkpoint that fails again after one that did not."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._told: set[str] = set()
        self._fails = False
        self._unsaid: list[str] = []

    async def saved(self, left_out: Iterable[str]) -> None:
        """There is a checkpoint, without these. Raises Fenced."""
        self._fails = False
        for phrase in left_out:
            if phrase not in self._told:
                self._told.add(phrase)
                await self._tell(LEFT_OUT.format(phrase))

    async def failed(self, reason: str) -> None:
        """There is none. Raises Fenced."""
        if not self._fails:
            self._fails = True
            await self._tell(FAILED.format(reason.strip()))

    async def _tell(self, sentence: str) -> None:
        self._unsaid.append(sentence)
        await self._log.append(Noticed(text=sentence, level="warning"))

    def said_with(self, result: ExecResult) -> ExecResult:
        """A command's result, with what was told since the last one."""
        lines, self._unsaid = [f"[{sentence}]\n" for sentence in self._unsaid], []
        return with_lines(result, lines)
