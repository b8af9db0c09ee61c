"""The scenarios of a few lines, for tests and benchmarks."""

from __future__ import annotations

import re

from agents.models.scripted.script import Say, Script, bash, call, do, finish

STEPS = 10
SLOW_SECONDS = 5.0
CHATTY_CHARS = 20_000


def number_in(prompt: str, word: str, default: float) -> float:
    """`steps=30` or `30 steps` in the prompt."""
    found = re.search(rf"\b{word}\s*[=:]\s*([\d.]+)", prompt) or re.search(rf"([\d.]+)\s*{word}\b", prompt)
    return float(found[1]) if found else default


def noop(prompt: str) -> Script:
    """Finishes at once."""
    while True:
        yield Say("Nothing to do.", (finish("There was nothing to do.", "Nothing"),))


def steps(prompt: str) -> Script:
    """`steps=N` quick commands, each of which leaves its number in `steps.txt`."""
    count = int(number_in(prompt, "steps", STEPS))
    for number in range(1, count + 1):
        yield from do(f"Step {number}.", bash(f"echo {number} >> steps.txt; echo step {number}"))
    while True:
        yield Say("Done.", (finish(f"I made {count} steps.", f"Make {count} steps"),))


def slow(prompt: str) -> Script:
    """A command that waits: for the fifo of `fifo=<path>`, else `seconds=N`."""
    fifo = re.search(r"\bfifo=(\S+)", prompt)
    wait = f"cat {fifo[1]}" if fifo else f"sleep {number_in(prompt, 'seconds', SLOW_SECONDS):g}"
    yield from do("I wait.", bash(f"echo waiting; {wait}; echo waited; date +%s > waited.txt"))
    while True:
        yield Say("Done.", (finish("I waited.", "Wait"),))


def counted(prompt: str) -> Script:
    """`calls=N` commands that count in one shell, beside a process. Each waits the next of `seconds=A,B` and exits with
    its number; in a new shell they count from 1 again."""
    found = re.search(r"\bseconds=([\d.,]+)", prompt)
    seconds = found[1].split(",") if found else ["1"]
    yield from do("Something runs beside my work.", call("process", action="start", command="sleep 10000"))
    for number in range(int(number_in(prompt, "calls", STEPS))):
        counting = "COUNT=$((COUNT + 1)); echo count $COUNT | tee -a counts.txt"
        wait = seconds[number % len(seconds)]
        yield from do(f"Call {number + 1}.", bash(f"{counting}; sleep {wait}; (exit $COUNT)"))
    yield from do("What is left of it?", call("process", action="list"), bash("echo last $COUNT; cat counts.txt"))
    while True:
        yield Say("Done.", (finish("I counted.", "Count"),))


def download(prompt: str) -> Script:
    """Asks for `host=<name>` over HTTPS, and says how that ended."""
    found = re.search(r"\bhost=([\w.-]+)", prompt)
    answer = yield from do("I look.", bash(f"curl -sS -o page.html https://{found[1] if found else 'example.com'}/"))
    while True:
        yield Say(answer.text, (finish("I looked.", "Look"),))


def program(prompt: str) -> Script:
    """The repository's own Python program `run=<path>`, and what it says."""
    path = found[1] if (found := re.search(r"\brun=([\w./-]+)", prompt)) else "main.py"
    ran = yield from do(f"I run {path}.", bash(f"python3 {path}"))
    while True:
        yield Say("Done.", (finish(ran.results[-1].text, "Run a program"),))


def chatty(prompt: str) -> Script:
    """A long text, `chars=N`."""
    line = "This sentence is scripted, not Claude, and it is here to be long. "
    while True:
        yield Say(line * (1 + int(number_in(prompt, "chars", CHATTY_CHARS)) // len(line)))
