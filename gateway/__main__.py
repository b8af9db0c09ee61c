"""`python -m gateway`: the gateway as a process of its own."""

from __future__ import annotations

import os
import sys

from gateway.actor import Gateway
from gateway.config import Config
from protocol.routes import Service
from services import actor
from services.config import WrongSetting, from_environment


def main() -> None:
    try:
        config = from_environment(Config, os.environ)
        actor.run(Service.GATEWAY, config, lambda bus: Gateway(config, bus), level=config.log_level)
    except WrongSetting as error:
        sys.exit(f"errand gateway: {error}")
    except ExceptionGroup as group:
        wrong = group.subgroup(WrongSetting)
        if wrong is None:
            raise
        sys.exit(f"errand gateway: {_first(wrong)}")


def _first(group: BaseException) -> BaseException:
    return _first(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


if __name__ == "__main__":
    main()
