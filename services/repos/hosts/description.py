"""What a pull request says. Pure.

Its text has a part that is ours, between two comments that GitHub does not show; what people write around it stays, and
when they take the comments away, all of it is theirs.
"""

from __future__ import annotations

import re

from protocol.repo import PullRequestWish

BEGIN = "<!-- errand: from here on the text is kept up to date -->"
END = "<!-- errand: to here -->"
OURS = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
SUMMARY_LIMIT_CHARS = 50_000
"""GitHub takes 65,536 for the whole."""
TITLE_LIMIT_CHARS = 200
UNFINISHED = "Unfinished: "


def title(wish: PullRequestWish) -> str:
    """One line; work that the turn did not finish says so."""
    line = " ".join(wish.title.removeprefix(UNFINISHED).split()) or "Work by Errand"
    line = f"{UNFINISHED}{line}" if wish.unfinished else line
    return line if len(line) <= TITLE_LIMIT_CHARS else line[: TITLE_LIMIT_CHARS - 1] + "…"


def newer_title(present: str, wish: PullRequestWish) -> str:
    """A title stays as it was opened or as people made it, but for one that calls finished work unfinished."""
    return title(wish) if present.startswith(UNFINISHED) and not wish.unfinished else present


def body(wish: PullRequestWish, link: str) -> str:
    """Our part. `link` is the task's address for people, empty where the server has no public one."""
    # A comment would hide what comes after it, and one of ours would end our part.
    summary = wish.summary.strip().replace("<!--", "&lt;!--")
    if len(summary) > SUMMARY_LIMIT_CHARS:
        summary = summary[:SUMMARY_LIMIT_CHARS] + "…"
    lines = [summary or "The model wrote no summary.", "---", f"{_made_by(wish)}{_see(link)}"]
    if wish.unfinished:
        lines.insert(0, "**This work is unfinished:** the task failed or reached a limit before it was done.")
    return "\n\n".join([BEGIN, *lines, END])


def newer_body(present: str, ours: str) -> str:
    """`present` with our part brought up to date."""
    return OURS.sub(lambda _: ours, present, count=1)


def _made_by(wish: PullRequestWish) -> str:
    if wish.scripted:
        return "Made by Errand with the scripted model, not Claude."
    return f"Made by Errand with {wish.model}." if wish.model else "Made by Errand."


def _see(link: str) -> str:
    return f" [The task, step by step]({link})" if link else ""
