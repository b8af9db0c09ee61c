"""The scripted `repair` on a small package: one token is broken, the package's own tests say so and then pass."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.models.claude import Claude
from agents.models.scripted.scenarios.mutations import functions, mutations
from agents.models.scripted.server import serving
from protocol.task import Budget
from tests.integration.agent_world import World

pytestmark = pytest.mark.anyio

COMMAND = "python3 -B -m unittest"
CODE = '''
"""Small things about numbers and words."""


def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return high
    return value


def is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


class Words:
    def __init__(self, text):
        self.words = text.split()

    def longest(self):
        best = ""
        for word in self.words:
            if len(word) > len(best):
                best = word
        return best

    def average(self):
        return total(len(word) for word in self.words) / len(self.words) if self.words else 0


def total(numbers):
    result = 0
    for number in numbers:
        result += number
    return result
'''

TESTS = """
import unittest

from small import numbers


class Numbers(unittest.TestCase):
    def test_clamp(self):
        self.assertEqual([numbers.clamp(n, 2, 4) for n in range(7)], [2, 2, 2, 3, 4, 4, 4])

    def test_leap(self):
        self.assertEqual([y for y in (1900, 2000, 2023, 2024) if numbers.is_leap(y)], [2000, 2024])

    def test_words(self):
        words = numbers.Words("one three seven")
        self.assertEqual(words.longest(), "three")
        self.assertAlmostEqual(words.average(), 13 / 3)
        self.assertEqual(numbers.Words("").average(), 0)
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[Claude]:
    async with serving() as server:
        claude = Claude(api_key="test", base_url=server.url, scripted=True)
        yield claude
        await claude.close()


def broken_world(folder: Path, code: str) -> World:
    world = World(folder, f"`{COMMAND}` fails. [scenario: repair]")
    for name, text in (("small/__init__.py", ""), ("small/numbers.py", code), ("tests/test_numbers.py", TESTS)):
        path = world.workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (world.workspace / "tests/__init__.py").touch()
    world.git("add", "-A")
    world.git("-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "Break something")
    return world


@pytest.mark.parametrize("name", ["total", "longest", "is_leap"])
async def test_a_one_token_fault_is_found_and_turned_back(tmp_path: Path, model: Claude, name: str) -> None:
    seed = int(os.environ.get("ERRAND_SEED", random.randrange(10**6)))
    print(f"ERRAND_SEED={seed}")
    world = await world_with_a_fault(tmp_path, name, random.Random(seed))
    result = await world.run(model, budget=Budget(steps=None))
    assert (await world.exec(COMMAND)).exit_code == 0
    assert "passes again" in result.summary
    assert world.git("diff", "--cached", "--name-only") == "small/numbers.py"


async def world_with_a_fault(folder: Path, name: str, chance: random.Random) -> World:
    """Not every change is a fault: the first one that the tests notice is taken."""
    changes = mutations(CODE, next(one for one in functions(CODE) if one.name == name))
    for number, fault in enumerate(chance.sample(changes, len(changes))):
        world = broken_world(folder / str(number), CODE.replace(fault.before, fault.after))
        if (await world.exec(COMMAND)).exit_code != 0:
            print(fault.what)
            return world
    raise AssertionError(f"the tests notice no change of `{name}`")


async def test_another_kind_of_fault_is_an_honest_failure_that_leaves_nothing(tmp_path: Path, model: Claude) -> None:
    world = broken_world(tmp_path, CODE.replace("return year % 4", "raise OSError\n    return year % 4"))
    result = await world.run(model, budget=Budget(steps=None))
    assert "still fails" in result.summary
    assert world.git("status", "--short") == ""
