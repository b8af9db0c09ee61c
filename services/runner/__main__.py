"""`python -m services.runner`: read the settings, build the model and the sandbox driver, run."""

from __future__ import annotations

import os
from pathlib import Path

from agents.models.claude import Claude
from protocol.routes import Service
from sandbox.config import Config as SandboxConfig
from sandbox.drivers import Drivers
from sandbox.report import checks
from services import actor
from services.bus import Bus, BusConfig
from services.config import from_environment, in_force
from services.runner.runner import Config, Runner


def main() -> None:
    config = from_environment(Config, os.environ)
    bus_config = from_environment(BusConfig, os.environ)
    sandbox_config = from_environment(SandboxConfig, os.environ)
    # The one setting without our prefix: it is the name that every tool of the field reads.
    key = os.environ.pop("ANTHROPIC_API_KEY", "")
    drivers = Drivers(sandbox_config, Path(config.data).absolute(), os.environ.get("DOCKER_HOST", ""))
    model = Claude(api_key=key or "scripted", base_url=config.model_url, scripted=config.scripted)

    def make(bus: Bus) -> Runner:
        return Runner(bus, config, model, drivers)

    told = actor.Told(
        in_force(bus_config, config, sandbox_config, ANTHROPIC_API_KEY=key),
        lambda: tuple(checks(drivers, drivers.notice)),
    )
    actor.run(Service.RUNNER, bus_config, make, level=config.log_level, told=told)


if __name__ == "__main__":
    main()
