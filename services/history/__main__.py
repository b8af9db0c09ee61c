"""`python -m services.history`: the one place that reads its settings."""

from __future__ import annotations

import os

from protocol.routes import Service
from services import actor
from services.bus import BusConfig
from services.config import from_environment
from services.history.service import Config, History


def main() -> None:
    bus_config = from_environment(BusConfig, os.environ)
    config = from_environment(Config, os.environ)
    actor.run(Service.HISTORY, bus_config, lambda bus: History(bus, config), level=config.log_level)


if __name__ == "__main__":
    main()
