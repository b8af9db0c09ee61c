"""`repair`: a test command in backticks fails; find the function with the one-token fault and turn it back.

It follows the traceback, then what the failing tests call, then what those functions call. It has no idea what the code
means: where the fault is another one than a single token it says that it failed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator

from msgspec import Struct

from agents.models.scripted.scenarios.mutations import Function, Mutation, functions, mutations
from agents.models.scripted.script import Heard, Result, Say, Script, bash, call, do, edit, finish

DEFAULT_COMMAND = "python3 -m unittest"
MUTATIONS_LIMIT = 400
FUNCTIONS_LIMIT = 60
NAMES_A_SEARCH = 40
FAILING_LIMIT = 3
"""So many of the failing tests are run after each change."""
OUTPUT_LINES = 400
"""Of a test run that fails; its end has the summary."""

FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE)
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n((?: {4}.*\n)?)')
CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
DEFINED = re.compile(r"^(.+?):(\d+):\s*(?:async )?def +(\w+)")
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


class Tried(Struct, frozen=True):
    count: int
    repaired: str = ""
    """What was changed, once the tests pass."""


def repair(prompt: str) -> Script:
    command = quoted[1] if (quoted := re.search(r"`([^`]+)`", prompt)) else DEFAULT_COMMAND
    ran = yield from do("I run the tests.", bash(f"pwd; {tail(command)}; echo took $SECONDS s; exit $code"))
    if passed(ran.results[0]):
        yield Say(
            "They pass.", (finish(f"`{command}` passes already: there is nothing to repair.", "Nothing to repair"),)
        )
        return
    root, _, output = ran.text.partition("\n")
    took = seconds_taken(output)
    tests = Tests(failing=limited(narrow(command, output), 5 + took), all=limited(command, 10 + 5 * took))
    tried = yield from search(root, output, tests)
    if tried.repaired:
        told = f"`{command}` passes again. I changed {tried.repaired} after {tried.count} tries."
        yield Say("Done.", (finish(told, f"Repair {tried.repaired.split(',')[0]}"),))
        return
    told = f"`{command}` still fails. I tried {tried.count} changes of one token and undid them: the fault is another."
    yield Say("I give up.", (finish(told, "Nothing repaired"),))


def search(root: str, output: str, tests: Tests) -> Generator[Say, Heard, Tried]:
    """Suspect after suspect, each with what it calls behind it in the queue."""
    queue = frames(root, output)
    names = [name for name in called_in(output) if not name.startswith("assert")]
    queue += yield from definitions(names)
    queue += yield from from_tests(root, output)
    seen: set[Suspect] = set()
    done: set[tuple[str, int]] = set()
    asked: set[str] = set(names)
    sources: dict[str, str] = {}  # every change is undone, so each file is read once
    count = 0
    while queue and len(done) < FUNCTIONS_LIMIT and count < MUTATIONS_LIMIT:
        suspect = queue.pop(0)
        if suspect in seen:
            continue
        seen.add(suspect)
        if suspect.file not in sources:
            sources[suspect.file] = yield from view(suspect.file)
        source = sources[suspect.file]
        function = choose(functions(source), suspect)
        if function is None or (suspect.file, function.first) in done:
            continue
        done.add((suspect.file, function.first))
        tried = yield from try_all(
            suspect.file, function, mutations(source, function)[: MUTATIONS_LIMIT - count], tests
        )
        count += tried.count
        if tried.repaired:
            return Tried(count, tried.repaired)
        queue += yield from definitions([name for name in function.calls if name not in asked])
        asked.update(function.calls)
    return Tried(count)


def try_all(file: str, function: Function, changes: list[Mutation], tests: Tests) -> Generator[Say, Heard, Tried]:
    """One change at a time; the next message takes back what did not help."""
    undo: Mutation | None = None
    for number, change in enumerate(changes, 1):
        calls = [edit("str_replace", file, old_str=undo.after, new_str=undo.before)] if undo else []
        calls += [
            edit("str_replace", file, old_str=change.before, new_str=change.after),
            bash(tests.failing),
        ]
        text = f"In `{function.name}`, line {change.line}: {change.what}."
        heard = yield from do(text, *calls)
        if heard.effects_lost or any(result.is_error for result in heard.results[:-1]):
            heard = yield from do(
                f"I start this one over. {text}",
                bash(f"git checkout -q HEAD -- '{file}'"),
                edit("str_replace", file, old_str=change.before, new_str=change.after),
                bash(tests.failing),
            )
        if passed(heard.results[-1]) and passed((yield from do("I run all tests.", bash(tests.all))).results[0]):
            return Tried(number, f"`{file}`, line {change.line}, in `{function.name}`: {change.what}")
        undo = change
    if undo:
        yield from do(
            f"It is not in `{function.name}`. I undo the last change.", bash(f"git checkout -q HEAD -- '{file}'")
        )
    return Tried(len(changes))


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
    """A changed program may never end."""
    return f"{tail(f'timeout -k 1 {seconds} bash -c {shlex.quote(command)}')}; exit $code"


def narrow(command: str, output: str) -> str:
    """Only what failed, where it is unittest that says so; else all, up to the first failure where that can be said."""
    program, unittest, _ = command.partition("-m unittest")
    if not unittest:
        return command
    # From Python 3.11 on the parenthesis ends with the test's name.
    names = [case if case.endswith(f".{test}") else f"{case}.{test}" for test, case in FAILED.findall(output)]
    return f"{program}-m unittest {' '.join(names[:FAILING_LIMIT])}" if names else f"{command} -f"


def seconds_taken(output: str) -> int:
    """By the first run of the tests."""
    took = re.search(r"^took (\d+) s$", output, re.MULTILINE)
    return int(took[1]) if took else 60


def passed(result: Result) -> bool:
    return not result.is_error and "[exit code 0]" in result.text.splitlines()[-1:]
