"""Which lines the failing tests run and the passing ones do not; a script that `repair` runs beside the tests.

Each line's suspicion is Ochiai's: of the failing tests that run it over the square root of (all failing tests times all tests
that run it). Abreu, Zoeteweij, van Gemund: On the Accuracy of Spectrum-based Fault Localization, 2007. Standard library
only: it runs where the tests do.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import unittest

HEADING = "suspicious lines:"
LINES_LIMIT = 400


class Spectrum(unittest.TestResult):
    """The lines of the program that each test ran, tests themselves left out."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__()
        self.root = root + os.sep
        self.until = time.monotonic() + seconds
        self.ran: dict[str, set[tuple[str, int]]] = {}
        self.failed: set[str] = set()
        self.now: set[tuple[str, int]] = set()
        self.inside: dict[str, bool] = {}

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
        file = frame.f_code.co_filename
        inside = self.inside.get(file)
        if inside is None:
            inside = self.inside[file] = file.startswith(self.root) and not is_test(file[len(self.root) :])
        return self.line if inside else None

    def line(self, frame, event, arg):
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line

    def suspicions(self) -> list[tuple[float, str, int]]:
        """Suspicion, file relative to the root, line; the most suspicious first."""
        failing: dict[tuple[str, int], int] = {}
        running: dict[tuple[str, int], int] = {}
        for test, lines in self.ran.items():
            for line in lines:
                running[line] = running.get(line, 0) + 1
                failing[line] = failing.get(line, 0) + (test in self.failed)
        total = len(self.failed & set(self.ran))
        found = [
            (failing[line] / (total * count) ** 0.5, line[0][len(self.root) :], line[1])
            for line, count in running.items()
            if failing[line]
        ]
        return sorted(found, key=lambda one: (-one[0], one[1:]))


def is_test(file: str) -> bool:
    return any(part.startswith("test") or part.endswith("_test.py") for part in file.split(os.sep))


def main(seconds: float, names: list[str]) -> None:
    """The failing tests' names, then their modules for the passing tests beside them."""
    sys.path.insert(0, "")
    spectrum = Spectrum(os.getcwd(), seconds)
    with contextlib.redirect_stdout(io.StringIO()):
        for name in names:
            unittest.defaultTestLoader.loadTestsFromName(name).run(spectrum)
    print(HEADING)
    for suspicion, file, line in spectrum.suspicions()[:LINES_LIMIT]:
        print(f"{suspicion:.4f} {file}:{line}")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
