"""`python -m services.scheduler`: read the settings, build the scheduler, run it."""

from __future__ import annotations

import os

from protocol.routes import Service
from services import actor
from services.bus import BusConfig
from services.config import from_environment, in_force
from services.scheduler.scheduler import Config, Scheduler


def main() -> None:
    config = from_environment(Config, os.environ)
    bus_config = from_environment(BusConfig, os.environ)
    told = actor.Told(in_force(bus_config, config))
    actor.run(Service.SCHEDULER, bus_config, lambda bus: Scheduler(bus, config), level=config.log_level, told=told)


if __name__ == "__main__":
    main()
