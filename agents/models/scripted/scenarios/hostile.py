"""`hostile`: what a model, or a repository that it read, may send to harm whoever reads it: markup, scripts, addresses,
terminal sequences, turned writing, lines without end. Nothing of it may act on a screen."""

from __future__ import annotations

from agents.models.scripted.script import Say, Script, bash, call, do, edit, finish

MARKUP = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script><svg/onload='window.hacked=1'>"
ADDRESSES = (
    "[click](javascript:window.hacked=1) [data](data:text/html,<script>window.hacked=1</script>) "
    "[https://bank.example](https://evil.example/x) ![picture](https://evil.example/pixel.png) "
    "https://user:secret@evil.example/"
)
TURNED = "file\u202etxt.exe\u202c \u2066isolated\u2069 \x1b]0;a title\x07\x1b[2J\x1b[31mred\x1b[0m \x9b1m bell\x07"
NESTED = "> " * 200 + "*" * 400 + "`" * 401 + "[" * 400 + "_" * 400
LINE_CHARS = 1_000_000
"""Of one line that a command prints; the tool keeps its ends."""
FILE = '<img src=x onerror="window.hacked=1">.md'
PRINT = (
    "printf '\\033[1;32mgreen\\033[0m \\033[38;5;196mred\\033[0m \\033[48;2;0;0;255mblue\\033[0m\\n"
    "10%%\\r100%%\\n\\033]0;title\\007<b>not bold</b>\\n'; "
    f"python3 -c \"print('x' * {LINE_CHARS})\""
)


def hostile(prompt: str) -> Script:
    text = "\n\n".join((MARKUP, ADDRESSES, TURNED, NESTED, "a" * 50_000))
    items = [{"text": MARKUP, "status": "in_progress"}, {"text": TURNED, "status": "pending"}]
    yield from do(text, call("todo", items=items), bash(PRINT), edit("create", FILE, file_text=f"{MARKUP}\n{TURNED}\n"))
    asked = yield from do("I ask.", call("ask_user", question=f"{MARKUP} {ADDRESSES}", choices=[MARKUP, "b" * 300]))
    while True:
        yield Say(asked.text, (finish(f"{MARKUP}\n\n{ADDRESSES}\n\n{TURNED}", "Add a file with a hostile name"),))
