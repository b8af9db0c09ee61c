"""Whole turns: the real loop and tools, the real SDK, the scripted server over HTTP, real commands in a real repository."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_world import Killed, World

from agents.contract import TurnFailed
from agents.loop import Settings
from agents.models.claude import Claude
from agents.models.scripted.server import serving
from protocol.journal import ModelCall, ModelReply, Noticed, StepFinished, StepLost, StepStarted, ToolCall, ToolResult
from protocol.task import Budget

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[Claude]:
    async with serving() as server:
        claude = Claude(api_key="test", base_url=server.url, scripted=True)
        yield claude
        await claude.close()


async def test_the_tour_reads_runs_and_adds_one_file(tmp_path: Path, model: Claude) -> None:
    world = World(tmp_path, "Show me around.")
    result = await world.run(model)
    content = (world.workspace / "ERRAND.md").read_text()
    print(content, result)
    for e in world.entries: print(e)
    assert "scripted, not Claude" in content
