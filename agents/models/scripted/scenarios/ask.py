"""`ask`: ask the user a question and write the answer into a file."""

from __future__ import annotations

from agents.models.scripted.script import SIGNATURE_LINE, Say, Script, call, do, edit, finish

FILE = "ANSWER.md"


def ask(prompt: str) -> Script:
    heard = yield from do("I need to know.", call("ask_user", question="Which colour?", choices=["red", "blue"]))
    answer = heard.text.removeprefix("The user answered: ")
    content = f"# The answer\n\n{answer}\n\nThis file is {SIGNATURE_LINE}.\n"
    while True:
        yield from do(f"I write the answer into {FILE}.", edit("create", FILE, file_text=content))
        heard = yield Say("Done.", (finish(f"You answered: {answer}", f"Add {FILE}"),))
