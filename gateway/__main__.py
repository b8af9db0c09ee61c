"""`python -m gateway`: read the settings, take the port, run."""

from __future__ import annotations

import os

from gateway import server
from gateway.actor import Gateway
from gateway.config import Config
from protocol.routes import Service
from services import actor
from services.config import from_environment
from services.github import github_settings


def main() -> None:
    config = from_environment(Config, os.environ)
    github = github_settings(os.environ)
    bound = server.bind(config)
    actor.run(Service.GATEWAY, config, lambda bus: Gateway(config, github, bus, bound), level=config.log_level)


if __name__ == "__main__":
    main()
