"""`repair`: a test command in backticks fails; find the function with the one-token fault and turn it back.

It looks first where the errors come up, then where their messages stand, then at the lines that the failing tests run
and the others do not, then follows the traceback, what the failing tests call, and what those functions call. It has no
idea what the code means: where the fault is another one than a single token it says that it failed.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path

from msgspec import Struct

from agents.models.scripted.scenarios.mutations import Function, Mutation, functions, mutations
from agents.models.scripted.script import Heard, Result, Say, Script, bash, call, do, edit, finish

DEFAULT_COMMAND = "python3 -m unittest"
MUTATIONS_LIMIT = 400
FUNCTIONS_LIMIT = 60
NAMES_A_SEARCH = 40
FAILING_LIMIT = 3
"""So many of the failing tests are run after each change."""
MEMORY_LIMIT_KIB = 4 * 1024 * 1024
MESSAGES_LIMIT = 2
PLACES_LIMIT = 4
LINES_ABOVE = 6
SPECTRUM_SECONDS = 15
SPECTRUM_TESTS = 20
SPECTRUM_MODULES = 6
OUTPUT_LINES = 400
"""Of a test run that fails; its end has the summary."""

FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n((?: {4}.*\n)?)')
CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
DEFINED = re.compile(r"^(.+?):(\d+):\s*(?:async )?def +(\w+)")
SUSPICIOUS = re.compile(r"^[\d.]+ (.+):(\d+)$", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last):"
MESSAGE = re.compile(r"^[\w.]*(?<!Assertion)(?:Error|Exception): (.+)$", re.MULTILINE)
WORDS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+){2,4}")
"""The beginning of a message, before anything that was put into it."""
FOUND = re.compile(r"^(.+?):(\d+):", re.MULTILINE)
NUMBERED = re.compile(r"^ *\d+\t(.*)$")


class Suspect(Struct, frozen=True):
    """A function that may have the fault."""

    file: str
    name: str
    line: int = 0
    """A line in it; 0 where only the name is known."""


class Tests(Struct, frozen=True):
    """Commands."""

    failing: str
    """Those that failed at first, where the output names them."""
    all: str


def repair(prompt: str) -> Script:
    command = quoted[1] if (quoted := re.search(r"`([^`]+)`", prompt)) else DEFAULT_COMMAND
    ran = yield from do(
        "I run the tests.", bash(f"pwd; SECONDS=0; {tail(command)}; echo took $SECONDS s; (exit $code)")
    )
    if passed(ran.results[0]):
        yield Say(
            "They pass.", (finish(f"`{command}` passes already: there is nothing to repair.", "Nothing to repair"),)
        )
        return
    root, _, output = ran.text.partition("\n")
    took = seconds_taken(output)
    tests = Tests(failing=limited(narrow(command, output), 5 + took), all=limited(command, 10 + 5 * took))
    bench = Bench(tests)
    repaired = yield from search(root, output, command, bench)
    if repaired:
        told = f"`{command}` passes again. I changed {repaired} after {bench.count} tries."
        yield Say("Done.", (finish(told, f"Repair {repaired.split(',')[0]}"),))
        return
    yield from bench.clear()
    told = f"`{command}` still fails. I tried {bench.count} changes of one token and undid them: the fault is another."
    yield Say("I give up.", (finish(told, "Nothing repaired"),))


class Bench:
    """Where changes are tried, one at a time. The next one takes back what did not help."""

    def __init__(self, tests: Tests) -> None:
        self.tests = tests
        self.count = 0
        self._sources: dict[str, str] = {}
        """Every change is undone, so each file is read once."""
        self._tried: set[tuple[str, Mutation]] = set()
        self._undo: tuple[str, Mutation] | None = None

    @property
    def is_full(self) -> bool:
        return self.count >= MUTATIONS_LIMIT

    def source(self, file: str) -> Generator[Say, Heard, str]:
        if file not in self._sources:
            self._sources[file] = yield from view(file)
        return self._sources[file]

    def try_all(self, file: str, function: Function, changes: Iterable[Mutation]) -> Generator[Say, Heard, str]:
        """What was changed, once the tests pass; empty when none of `changes` helps."""
        for change in changes:
            if (file, change) in self._tried or self.is_full:
                continue
            self._tried.add((file, change))
            self.count += 1
            if (yield from self._try(file, function, change)):
                return f"`{file}`, line {change.line}, in `{function.name}`: {change.what}"
        return ""

    def clear(self) -> Generator[Say, Heard, None]:
        """Take back the last change."""
        if self._undo:
            yield from do("I undo the last change.", bash(f"git checkout -q HEAD -- {shlex.quote(self._undo[0])}"))
            self._undo = None

    def _try(self, file: str, function: Function, change: Mutation) -> Generator[Say, Heard, bool]:
        make = edit("str_replace", file, old_str=change.before, new_str=change.after)
        calls = [make, bash(self.tests.failing)]
        if self._undo:
            before, undo = self._undo
            calls.insert(0, edit("str_replace", before, old_str=undo.after, new_str=undo.before))
        self._undo = file, change
        text = f"In `{function.name}`, line {change.line}: {change.what}."
        heard = yield from do(text, *calls)
        if heard.effects_lost or any(result.is_error for result in heard.results[:-1]):
            back = bash("git checkout -q HEAD -- .")
            heard = yield from do(f"I start this one over. {text}", back, make, bash(self.tests.failing))
        if not passed(heard.results[-1]):
            return False
        return passed((yield from do("I run all tests.", bash(self.tests.all))).results[0])


def search(root: str, output: str, command: str, bench: Bench) -> Generator[Say, Heard, str]:
    """What was changed; empty when nothing helps."""
    called = [name for name in called_in(output) if not name.startswith("assert")]
    names = [*called, *(test.rpartition(".")[2] for test in failed_tests(output))]
    defined = yield from definitions(names)
    lines = raising_lines(root, output) + (yield from message_lines(output))
    lines += yield from suspicious_lines(command, output)
    repaired = yield from search_lines(lines, bench)
    if repaired:
        return repaired
    suspects = frames(root, output) + defined + (yield from from_tests(root, output))
    return (yield from search_functions(suspects, set(called), bench))


def search_lines(lines: list[tuple[str, int]], bench: Bench) -> Generator[Say, Heard, str]:
    """Line after line."""
    for file, line in lines:
        if bench.is_full:
            break
        source = yield from bench.source(file)
        function = choose(functions(source), Suspect(file, "", line))
        if function is None:
            continue
        changes = (change for change in mutations(source, function) if change.line == line)
        if repaired := (yield from bench.try_all(file, function, changes)):
            return repaired
    return ""


def search_functions(queue: list[Suspect], asked: set[str], bench: Bench) -> Generator[Say, Heard, str]:
    """Function after function, each with what it calls behind it in the queue; `asked` are names already looked for."""
    seen: set[Suspect] = set()
    done: set[tuple[str, int]] = set()
    while queue and len(done) < FUNCTIONS_LIMIT and not bench.is_full:
        suspect = queue.pop(0)
        if suspect in seen:
            continue
        seen.add(suspect)
        source = yield from bench.source(suspect.file)
        function = choose(functions(source), suspect)
        if function is None or (suspect.file, function.first) in done:
            continue
        done.add((suspect.file, function.first))
        if repaired := (yield from bench.try_all(suspect.file, function, mutations(source, function))):
            return repaired
        queue += yield from definitions([name for name in function.calls if name not in asked])
        asked.update(function.calls)
    return ""


def raising_lines(root: str, output: str) -> list[tuple[str, int]]:
    """Where the errors come up, the most frequent first, and the lines above."""
    tracebacks = (frames(root, one) for one in output.split(TRACEBACK))
    found = Counter((one[0].file, one[0].line) for one in tracebacks if one)
    return with_lines_above([place for place, _ in found.most_common(PLACES_LIMIT)])


def message_lines(output: str) -> Generator[Say, Heard, list[tuple[str, int]]]:
    """Where what the errors say stands in the source, and the lines above, which led there."""
    said = [words[0] for message in MESSAGE.findall(output) if (words := WORDS.match(message))]
    if not said:
        return []
    pattern = "|".join(words for words, _ in Counter(said).most_common(MESSAGES_LIMIT))
    heard = yield from do("I look who says that.", call("grep", pattern=f"({pattern})", include="*.py"))
    found = [(match[1].removeprefix("./"), int(match[2])) for match in FOUND.finditer(heard.text)]
    return with_lines_above([(file, line) for file, line in found if not is_test(file)][:PLACES_LIMIT])


def with_lines_above(places: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(file, line - up) for file, line in places for up in range(min(LINES_ABOVE, line))]


def suspicious_lines(command: str, output: str) -> Generator[Say, Heard, list[tuple[str, int]]]:
    """By the spectrum, where it is unittest that the tests are run with; the most suspicious first."""
    program, unittest, _ = command.partition("-m unittest")
    failed = failed_tests(output)
    if not unittest or not failed:
        return []
    from agents.models.scripted.scenarios import spectrum  # unittest, a MiB of it

    modules = Counter(test.rsplit(".", 2)[0] for test in failed)
    names = " ".join([*failed[:SPECTRUM_TESTS], *(name for name, _ in modules.most_common(SPECTRUM_MODULES))])
    script = Path(spectrum.__file__).read_text()
    run = f"timeout -k 1 {4 * SPECTRUM_SECONDS} {program}- {SPECTRUM_SECONDS} {names} <<'SPECTRUM'\n{script}\nSPECTRUM"
    heard = yield from do("I look which lines the failing tests run and the others do not.", bash(run))
    _, _, lines = heard.text.partition(spectrum.HEADING)
    return [(file, int(line)) for file, line in SUSPICIOUS.findall(lines)]


def definitions(names: list[str]) -> Generator[Say, Heard, list[Suspect]]:
    """Where functions of these names are defined, in the order of the names."""
    names = [name for name in dict.fromkeys(names) if not name.startswith("__")][:NAMES_A_SEARCH]
    if not names:
        return []
    pattern = rf"def +({'|'.join(names)})\("
    heard = yield from do("I look for what is called there.", call("grep", pattern=pattern, include="*.py"))
    found = [match for line in heard.text.splitlines() if (match := DEFINED.match(line)) and not is_test(match[1])]
    found.sort(key=lambda match: names.index(match[3]))
    return [Suspect(match[1].removeprefix("./"), match[3], int(match[2])) for match in found]


def from_tests(root: str, output: str) -> Generator[Say, Heard, list[Suspect]]:
    """Where what the failing tests call is defined."""
    names: list[str] = []
    tests = [(inside(root, path), name) for path, _, name, _ in FRAME.findall(output)]
    for file, name in dict.fromkeys((file, name) for file, name in tests if file and is_test(file)):
        source = yield from view(file)
        names += [one for function in functions(source) if function.name == name for one in function.calls]
    return (yield from definitions([name for name in names if not name.startswith("assert")]))


def view(file: str) -> Generator[Say, Heard, str]:
    """The file's source; in pieces, where it is long."""
    lines: list[str] = []
    while True:
        part = [len(lines) + 1, len(lines) + 1000]
        heard = yield from do(f"I read {file}.", edit("view", file, view_range=part))
        more = [] if heard.failed else [m[1] for one in heard.text.split("\n") if (m := NUMBERED.match(one))]
        lines += more
        if len(more) < 1000:
            return "\n".join([*lines, ""])


def frames(root: str, output: str) -> list[Suspect]:
    """The functions of the traceback that are no tests, the innermost first."""
    found = [Suspect(inside(root, path), name, int(line)) for path, line, name, _ in FRAME.findall(output)]
    return [one for one in reversed(found) if one.file and not is_test(one.file)]


def called_in(output: str) -> list[str]:
    return [name for *_, source in FRAME.findall(output) for name in CALLED.findall(source)]


def choose(known: list[Function], suspect: Suspect) -> Function | None:
    """The innermost function around the line, else the one of that name."""
    around = [one for one in known if one.first <= suspect.line <= one.last]
    if around:
        return max(around, key=lambda one: one.first)
    return next((one for one in known if one.name == suspect.name), None)


def inside(root: str, path: str) -> str:
    """Relative to the repository; empty for a file that is not in it."""
    if path.startswith(f"{root}/"):
        return path.removeprefix(f"{root}/")
    return "" if path.startswith(("/", "<")) else path.removeprefix("./")


def is_test(file: str) -> bool:
    return any(part.startswith("test") or part.endswith("_test.py") for part in file.split("/"))


def tail(command: str) -> str:
    """The command's last lines; its exit code is in `code`."""
    return f"out=$(mktemp); ({command}) > $out 2>&1; code=$?; tail -n {OUTPUT_LINES} $out; rm $out"


def limited(command: str, seconds: int) -> str:
    """A changed program may never end, or take all memory."""
    command = f"ulimit -v {MEMORY_LIMIT_KIB}; {command}"
    return f"{tail(f'timeout -k 1 {seconds} bash -c {shlex.quote(command)}')}; (exit $code)"


def narrow(command: str, output: str) -> str:
    """Only what failed, where it is unittest that says so; else all, up to the first failure where that can be said."""
    program, unittest, _ = command.partition("-m unittest")
    if not unittest:
        return command
    names = failed_tests(output)
    # Not only the first: they often fail for the same reason.
    some = names[:: max(1, len(names) // FAILING_LIMIT)][:FAILING_LIMIT]
    return f"{program}-m unittest {' '.join(some)}" if some else f"{command} -f"


def failed_tests(output: str) -> list[str]:
    """Their full names, without those that are a module that cannot be imported."""
    # From Python 3.11 on the parenthesis ends with the test's name.
    names = (case if case.endswith(f".{test}") else f"{case}.{test}" for test, case in FAILED.findall(output))
    return [name for name in dict.fromkeys(names) if "_FailedTest" not in name]


def seconds_taken(output: str) -> int:
    """By the first run of the tests."""
    took = re.search(r"^took (\d+) s$", output, re.MULTILINE)
    return int(took[1]) if took else 60


def passed(result: Result) -> bool:
    return not result.is_error and "[exit code 0]" in result.text.splitlines()[-1:]
