"""Run by the peers' Python: milliseconds of a no-op in mini-swe-agent's Docker environment, as JSON on stdout. Its
words: IMAGE ROUNDS."""

import json
import sys
import time

from minisweagent.environments.docker import DockerEnvironment


def main(image: str, rounds: str) -> None:
    environment = DockerEnvironment(image=image, run_args=["--rm", "--network", "none"], container_timeout="10m")
    try:
        taken = []
        for _ in range(int(rounds)):
            began = time.perf_counter()
            assert environment.execute({"command": "true"})["returncode"] == 0
            taken.append((time.perf_counter() - began) * 1000)
    finally:
        environment.cleanup()
    print(json.dumps({"no_op_milliseconds": taken}))


main(*sys.argv[1:])
