"""What `repair` makes of a test run's output, and the spectrum it takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agents.models.scripted.scenarios import spectrum
from agents.models.scripted.scenarios.repair import failed_tests, narrow, raising_lines

OUTPUT = """
======================================================================
ERROR: test_one (tests.test_a.Case.test_one)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/w/tests/test_a.py", line 5, in test_one
    a.one()
  File "/w/a.py", line 3, in one
    return two()
  File "/w/a.py", line 9, in two
    raise ValueError("no")
ValueError: no

======================================================================
FAIL: test_two (tests.test_a.Case) [odd] (i=1)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/w/tests/test_a.py", line 8, in test_two
    self.assertEqual(1, 2)
AssertionError: 1 != 2

======================================================================
ERROR: test_b (unittest.loader._FailedTest.test_b)
----------------------------------------------------------------------
ImportError: Failed to import test module: test_b
Traceback (most recent call last):
  File "/w/tests/test_b.py", line 1, in <module>
    from b import three
  File "/w/b.py", line 2, in <module>
    four()
ZeroDivisionError: division by zero
"""
PROGRAM = """
SEEN = []


def at_import(value):
    return value + 1


START = at_import(1)


def both(value):
    if value > 5:
        return broken(value)
    return value


def broken(value):
    value += 1
    return value * 2
"""
TESTS = """
import unittest

from program import both


class Case(unittest.TestCase):
    def test_small(self):
        self.assertEqual(both(2), 2)

    def test_large(self):
        self.assertEqual(both(7), 7)

    def test_parts(self):
        for value in (1, 8):
            with self.subTest(value):
                self.assertEqual(both(value), value)
"""


def test_failed_tests_are_named_whole_once_and_without_modules_that_cannot_be_loaded() -> None:
    assert failed_tests(OUTPUT + OUTPUT) == ["tests.test_a.Case.test_one", "tests.test_a.Case.test_two"]


@pytest.mark.parametrize(
    ("command", "output", "narrowed"),
    [
        ("python3 -m unittest", "ERROR: test_b (unittest.loader._FailedTest.test_b)", "python3 -m unittest -f"),
        ("python3 -m unittest -q", "FAIL: t (a.B.t)", "python3 -m unittest a.B.t"),
        ("pytest", "FAIL: t (a.B.t)", "pytest"),
    ],
    ids=["a module that cannot be loaded names no test", "only what failed", "another program"],
)
def test_only_what_failed_is_run_after_a_change(command: str, output: str, narrowed: str) -> None:
    assert narrow(command, output) == narrowed


def test_the_search_begins_where_errors_come_up_and_goes_upwards() -> None:
    lines = raising_lines("/w", OUTPUT)
    assert lines[:3] == [("a.py", 9), ("a.py", 8), ("a.py", 7)]
    assert ("b.py", 2) in lines, "an error while a module is loaded"
    assert all(not file.startswith("tests") for file, _ in lines)


def test_lines_that_only_failing_tests_run_come_first_then_what_led_there_then_what_all_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "test_program.py").write_text(TESTS)
    command = [sys.executable, "-B", spectrum.__file__, "15", "test_program.Case.test_large", "test_program"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    heading, *lines = ran.stdout.splitlines()
    assert heading == spectrum.HEADING
    numbers = [int(line.rpartition(":")[2]) for line in lines if re.fullmatch(r"\d\.\d{4} program.py:\d+", line)]
    called, led_there, also, in_broken, loaded = 14, 13, 15, {19, 20}, 6
    assert len(numbers) == len(lines)
    assert {called, *in_broken} == set(numbers[:3])
    assert numbers[3:] == [led_there, also, loaded] or numbers[3:] == [led_there, loaded, also]
