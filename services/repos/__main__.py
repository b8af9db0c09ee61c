"""`python -m services.repos`: read the settings, build the repos service, run it."""

from __future__ import annotations

import os

from protocol.routes import Service
from services import actor
from services.bus import Bus, BusConfig
from services.config import from_environment, in_force
from services.github import github_settings
from services.repos.service import Config, Repos


def main() -> None:
    config = from_environment(Config, os.environ)
    bus_config = from_environment(BusConfig, os.environ)
    github = github_settings(os.environ)
    told = actor.Told(in_force(bus_config, config, github))

    def make(bus: Bus) -> Repos:
        return Repos(bus, config, github, os.environ)

    actor.run(Service.REPOS, bus_config, make, level=config.log_level, told=told)


if __name__ == "__main__":
    main()
