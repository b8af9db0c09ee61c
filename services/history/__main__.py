"""`python -m services.history`: the one place that reads its settings."""

from __future__ import annotations

import os

from protocol.routes import Service
from services import actor
from services.bus import BusConfig
from services.config import from_environment, in_force
from services.history.service import Config, History


def main() -> None:
    bus_config = from_environment(BusConfig, os.environ)
    config = from_environment(Config, os.environ)
    told = actor.Told(in_force(bus_config, config))
    actor.run(Service.HISTORY, bus_config, lambda bus: History(bus, config), level=config.log_level, told=told)


if __name__ == "__main__":
    main()
