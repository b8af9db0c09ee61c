"""Run by the peers' Python: milliseconds of a no-op in a session of SWE-ReX, as JSON on stdout. Its word: ROUNDS.

Its local runtime is measured: what a container and HTTP add to it is left out, in its favour."""

import asyncio
import json
import sys
import time

from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
from swerex.runtime.local import LocalRuntime


async def main(rounds: str) -> None:
    runtime = LocalRuntime()
    await runtime.create_session(CreateBashSessionRequest())
    taken = []
    for _ in range(int(rounds)):
        began = time.perf_counter()
        assert (await runtime.run_in_session(BashAction(command="true"))).exit_code == 0
        taken.append((time.perf_counter() - began) * 1000)
    await runtime.close()
    print(json.dumps({"no_op_milliseconds": taken}))


asyncio.run(main(*sys.argv[1:]))
