"""Which lines the failing tests run and the passing ones do not; a script that `repair` runs beside the tests.

A line's suspicion is Ochiai's: of the failing tests that run it over the square root of (all failing tests times all
tests that run it). Abreu, Zoeteweij, van Gemund: On the Accuracy of Spectrum-based Fault Localization, 2007. A line
that leads to a suspicious one (stands above it in its function, or calls its function) is nearly as suspicious: it may
have decided wrongly to go there. Standard library only: it runs where the tests do.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import time
import unittest
from pathlib import Path

Line = tuple[str, int, int]
"""File, its function's first line, line."""
HEADING = "suspicious lines:"
LINES_LIMIT = 800
ABOVE = 0.97
"""What is left of a suspicion one line up."""
CALLER = 0.9
"""What is left of a suspicion where the function is called."""
CALLERS_UP = 2


class Spectrum(unittest.TestResult):
    """The lines of the program that each test ran, tests themselves left out."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__()
        self.root = root + os.sep
        self.until = time.monotonic() + seconds
        self.ran: dict[str, set[Line]] = {}
        self.failed: set[str] = set()
        self.loaded: set[Line] = set()
        """Run while the tests were loaded: as if each test had."""
        self.now = self.loaded
        self.inside: dict[str, bool] = {}
        self.calls: set[tuple[Line, tuple[str, int]]] = set()
        """From a line to a function."""

    def startTest(self, test) -> None:
        super().startTest(test)
        self.now = self.ran[test.id()] = set()
        sys.settrace(self.enter)

    def stopTest(self, test) -> None:
        sys.settrace(None)
        super().stopTest(test)
        if time.monotonic() > self.until:
            self.stop()

    def addFailure(self, test, err) -> None:
        self.failed.add(test.id())

    def addError(self, test, err) -> None:
        self.failed.add(test.id())

    def addSubTest(self, test, subtest, err) -> None:
        if err is not None:
            self.failed.add(test.id())

    def enter(self, frame, event, arg):
        code, caller = frame.f_code, frame.f_back
        is_function = code.co_flags & inspect.CO_OPTIMIZED  # and neither a module nor a class
        if not is_function or not self.is_inside(code.co_filename):
            return None
        if caller is not None and self.is_inside(caller.f_code.co_filename):
            self.calls.add((line_of(caller), (code.co_filename, code.co_firstlineno)))
        return self.line

    def line(self, frame, event, arg):
        self.now.add(line_of(frame))
        return self.line

    def is_inside(self, file: str) -> bool:
        if file not in self.inside:
            self.inside[file] = file.startswith(self.root) and not is_test(file[len(self.root) :])
        return self.inside[file]

    def suspicions(self) -> list[tuple[float, str, int]]:
        """Suspicion, file relative to the root, line; the most suspicious first."""
        found = self.own_suspicions()
        for _ in range(CALLERS_UP):
            climb(found)
            highest: dict[tuple[str, int], float] = {}
            for (file, function, _line), suspicion in found.items():
                highest[file, function] = max(suspicion, highest.get((file, function), 0.0))
            for caller, function in self.calls:
                if caller in found:
                    found[caller] = max(found[caller], CALLER * highest.get(function, 0.0))
        climb(found)
        lines = [(suspicion, file[len(self.root) :], line) for (file, _, line), suspicion in found.items()]
        return sorted(lines, key=lambda one: (-one[0], one[1:]))

    def own_suspicions(self) -> dict[Line, float]:
        running: dict[Line, int] = {}
        failing: dict[Line, int] = {}
        for test, lines in self.ran.items():
            for line in lines:
                running[line] = running.get(line, 0) + 1
                failing[line] = failing.get(line, 0) + (test in self.failed)
        total = len(self.failed & set(self.ran))
        for line in self.loaded:
            running[line], failing[line] = len(self.ran), total
        return {line: failing[line] / (total * count) ** 0.5 for line, count in running.items() if failing[line]}


def climb(found: dict[Line, float]) -> None:
    """Give each line what is left of the suspicion of those below it in its function."""
    below: Line = ("", 0, 0)
    for line in sorted(found, reverse=True):
        if line[:2] == below[:2]:
            found[line] = max(found[line], found[below] * ABOVE ** (below[2] - line[2]))
        below = line


def line_of(frame) -> Line:
    code = frame.f_code
    return code.co_filename, code.co_firstlineno, frame.f_lineno


def is_test(file: str) -> bool:
    return any(part.startswith("test") or part.endswith("_test.py") for part in Path(file).parts)


def main(seconds: float, names: list[str]) -> None:
    """The failing tests' names, then their modules for the passing tests beside them."""
    sys.path.insert(0, "")
    spectrum = Spectrum(str(Path.cwd()), seconds)
    with contextlib.redirect_stdout(io.StringIO()):
        for name in names:
            sys.settrace(spectrum.enter)
            tests = unittest.defaultTestLoader.loadTestsFromName(name)
            sys.settrace(None)
            tests.run(spectrum)
            spectrum.now = spectrum.loaded
    print(HEADING)
    for suspicion, file, line in spectrum.suspicions()[:LINES_LIMIT]:
        print(f"{suspicion:.4f} {file}:{line}")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
