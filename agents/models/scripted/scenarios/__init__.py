"""The scenarios, one file each, chosen by `[scenario: name]` in the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agents.models.scripted.scenarios.ask import ask
from agents.models.scripted.scenarios.hostile import hostile
from agents.models.scripted.scenarios.repair import repair
from agents.models.scripted.scenarios.small import chatty, counted, download, noop, program, slow, steps
from agents.models.scripted.scenarios.tour import tour
from agents.models.scripted.script import Scenario

SCENARIOS: Mapping[str, Scenario] = {
    "tour": tour,
    "repair": repair,
    "ask": ask,
    "slow": slow,
    "steps": steps,
    "chatty": chatty,
    "counted": counted,
    "download": download,
    "noop": noop,
    "program": program,
    "hostile": hostile,
}
TAG = re.compile(r"\[scenario:\s*(\w+)\s*\]")


def scenario_of(prompt: str) -> Scenario:
    """The one that the prompt names, else the tour."""
    named = TAG.search(prompt)
    return SCENARIOS.get(named[1], tour) if named else tour
