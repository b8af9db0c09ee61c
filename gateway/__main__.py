"""`python -m gateway`: read the settings, take the port, run."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from gateway import server
from gateway.actor import Gateway
from gateway.config import Config
from protocol.routes import Service
from services import actor
from services.bus import Bus
from services.config import from_environment, in_force
from services.github import github_settings


def main() -> None:
    # Litestar would load it, and keep 8 MiB of it, because it is there: for the runner, no message here is made of it.
    sys.modules["pydantic"] = cast(Any, None)
    config = from_environment(Config, os.environ)
    github = github_settings(os.environ)
    bound = server.bind(config)
    told = actor.Told(in_force(config, github))

    def make(bus: Bus) -> Gateway:
        return Gateway(config, github, bus, bound)

    actor.run(Service.GATEWAY, config, make, level=config.log_level, told=told)


if __name__ == "__main__":
    main()
