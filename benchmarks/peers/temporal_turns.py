"""Temporal's dev server with its database in a file: a workflow with one activity that does nothing is our turn.
`python temporal_turns.py <address> <workflows> <at once> <one at a time>`, with the peers' Python."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bench"
begun: dict[str, float] = {}


@activity.defn
async def nothing() -> None:
    begun[activity.info().workflow_id] = time.perf_counter()


@workflow.defn
class Turn:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=60))


async def connected(address: str) -> Client:
    """Once the server has started; its own start takes seconds."""
    for _ in range(300):
        try:
            return await Client.connect(address)
        except RuntimeError:
            await asyncio.sleep(0.1)  # another program's server tells nobody when it is ready
    raise SystemExit(f"nobody answers at {address}")


async def main(address: str, workflows: int, at_once: int, singles: int) -> None:
    client = await connected(address)
    limit = asyncio.Semaphore(at_once)

    async def turn(name: str) -> None:
        async with limit:
            await client.execute_workflow(Turn.run, id=name, task_queue=QUEUE)

    async with Worker(client, task_queue=QUEUE, workflows=[Turn], activities=[nothing]):
        starts = []
        for number in range(singles):
            sent, name = time.perf_counter(), f"single-{number}"
            await turn(name)
            starts.append((begun[name] - sent) * 1000)
        since = time.perf_counter()
        await asyncio.gather(*(turn(f"turn-{number}") for number in range(workflows)))
        per_second = workflows / (time.perf_counter() - since)
    print(json.dumps({"per_second": per_second, "start_milliseconds": starts}))


if __name__ == "__main__":  # the sandbox in which a workflow runs imports this file again
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
