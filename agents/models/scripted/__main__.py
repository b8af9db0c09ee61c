"""`python -m agents.models.scripted --port N`: serve until SIGTERM. Prints the address as a line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import json

from agents.models.scripted.server import serving


async def serve(host: str, port: int, pace_ms: float) -> None:
    async with serving(host=host, port=port, pace_seconds=pace_ms / 1000, signals=True) as server:
        print(json.dumps({"listening": server.url, "model": "scripted, not Claude"}), flush=True)
        await server.ended()


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m agents.models.scripted", description=__doc__)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--pace-ms", type=float, default=0.0, help="wait between two pieces of an answer")
    given = options.parse_args()
    asyncio.run(serve(given.host, given.port, given.pace_ms))


if __name__ == "__main__":
    main()
