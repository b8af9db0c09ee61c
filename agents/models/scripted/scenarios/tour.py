"""`tour`, the default: look around, run something harmless, add one file. A later message is added to that file."""

from __future__ import annotations

import re

from agents.models.scripted.script import (
    SIGNATURE_LINE,
    TRIES,
    Call,
    Heard,
    Say,
    Script,
    bash,
    call,
    do,
    edit,
    finish,
)

FILE_IN_PROMPT = re.compile(r"(?<![\w/.:-])((?:[\w-]+/)*[\w-]+\.(?:md|txt|rst))\b")
DEFAULT_FILE = "ERRAND.md"
PLAN = ("Look at the repository", "Run something harmless", "Add one file")


def tour(prompt: str) -> Script:
    file = named[1] if (named := FILE_IN_PROMPT.search(prompt)) else DEFAULT_FILE
    said: list[str] = []

    def listen(heard: Heard) -> Heard:
        said.extend(heard.texts)
        return heard

    looked = listen((yield from do("I look at the repository first.", call("glob", pattern="*"), plan(0))))
    first = first_to_read(looked.results[0].text)
    if first:
        read = listen((yield from do(f"I read {first}.", edit("view", first, view_range=[1, 20]))))
        if read.failed:
            read = listen((yield from do("I read it whole.", bash(f"head -n 20 -- {first}"))))
    else:
        read = listen((yield from do("There is no file yet. I look at the folder.", bash("ls -la"))))
    ran = listen(
        (
            yield from do(
                "Now something harmless.",
                plan(1),
                bash("git log -1 --oneline; git ls-files | wc -l"),
            )
        )
    )
    content = page(prompt, looked.text, first, read.text, ran.results[-1].text)
    for _ in range(TRIES):
        wrote = listen((yield from do(f"I add {file}.", plan(2), edit("create", file, file_text=content))))
        checked = listen((yield from do("I check it.", bash(f"tail -n 3 -- {file}"), plan(3))))
        if not wrote.effects_lost and not checked.effects_lost and not checked.failed:
            break
    summary = f"I looked at the repository, ran `git log` in it and added `{file}`."
    subject = f"Add {file}"
    written = 0
    while True:
        while written < len(said):
            heard = listen((yield from do(f"I add your message to {file}.", append(file, said[written]))))
            written = 0 if heard.effects_lost else written + 1
            if heard.effects_lost:
                listen((yield from do(f"I write {file} again.", edit("create", file, file_text=content))))
        heard = listen((yield Say("Done.", (finish(summary, subject),))))
        if heard.effects_lost:
            listen((yield from do(f"I write {file} again.", edit("create", file, file_text=content))))
            written = 0
        elif not heard.failed:
            summary, subject = f"I added what you wrote to `{file}`.", f"Add to {file}"


def plan(done: int) -> Call:
    states = ["done" if n < done else "in_progress" if n == done else "pending" for n in range(len(PLAN))]
    return call("todo", items=[{"text": text, "status": state} for text, state in zip(PLAN, states, strict=True)])


def append(file: str, text: str) -> Call:
    return bash(f"cat >> {file} <<'ERRAND_MESSAGE'\n\n{text}\nERRAND_MESSAGE")


def first_to_read(listing: str) -> str:
    """A README, else the first file that looks like text."""
    files = [line for line in listing.splitlines() if re.fullmatch(r"[\w./-]+", line)]
    readmes = [file for file in files if file.lower().startswith("readme")]
    return next(iter([*readmes, *files]), "")


def page(prompt: str, listing: str, first: str, text: str, ran: str) -> str:
    """What the file says, from what was seen."""
    files = [line for line in listing.splitlines() if re.fullmatch(r"[\w./-]+", line)]
    commit, _, rest = ran.partition("\n")
    count = next((line.strip() for line in rest.splitlines() if line.strip().isdigit()), "?")
    line = next((one.split("\t", 1)[-1].strip() for one in text.splitlines() if one.split("\t", 1)[-1].strip()), "")
    quoted = "\n".join(f"> {one}" for one in prompt.strip().splitlines()[:20])
    return (
        "# A tour of this repository\n\n"
        f"Written by the scripted model ({SIGNATURE_LINE}), who was asked:\n\n{quoted}\n\n"
        f"- Files that git tracks: {count}\n"
        f"- Last commit: {commit}\n"
        f"- At the top: {', '.join(files[:12]) or 'nothing'}\n"
        f"- First line of {first or 'the folder'}: {line[:200]}\n"
    )
