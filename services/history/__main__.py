"""`python -m services.history`: the one place that reads its settings."""

from __future__ import annotations

import os
import sys

from protocol.routes import Service
from services import actor
from services.bus import BusConfig
from services.config import WrongSetting, from_environment
from services.history.service import Config, History


def main() -> None:
    try:
        bus_config = from_environment(BusConfig, os.environ)
        config = from_environment(Config, os.environ)
    except WrongSetting as error:
        sys.exit(str(error))
    actor.run(Service.HISTORY, bus_config, lambda bus: History(bus, config))


if __name__ == "__main__":
    main()
