"""`python -m services.repos`: read the settings, build the repos service, run it."""

from __future__ import annotations

import os

from protocol.routes import Service
from services import actor
from services.bus import BusConfig
from services.config import from_environment
from services.github import github_settings
from services.repos.service import Config, Repos


def main() -> None:
    config = from_environment(Config, os.environ)
    bus_config = from_environment(BusConfig, os.environ)
    github = github_settings(os.environ)
    actor.run(Service.REPOS, bus_config, lambda bus: Repos(bus, config, github, os.environ), level=config.log_level)


if __name__ == "__main__":
    main()
