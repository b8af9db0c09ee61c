"""The options that say which tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from protocol.query import TaskFilter
from protocol.task import TaskState
from services.cli.failure import Failure

OPTIONS = (
    click.option("--state", multiple=True, type=click.Choice([state.value for state in TaskState]), help="Only these."),
    click.option("--tag", multiple=True, help="Only with this tag; with all of them where given again."),
    click.option("--meta", multiple=True, metavar="NAME=VALUE", help="Only with this metadata."),
    click.option("--repo", default="", metavar="PART", help="Only of repositories with this in their URL."),
    click.option("--search", default="", metavar="WORDS", help="Only with these words in title or prompt."),
)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command `where`, a TaskFilter, made from options."""

    @wraps(function)
    def command(
        *args: Any, state: Sequence[str], tag: Sequence[str], meta: Sequence[str], repo: str, search: str, **rest: Any
    ) -> Any:
        where = TaskFilter(
            states=tuple(TaskState(one) for one in state),
            tags=tuple(tag),
            metadata=pairs(meta),
            repository=repo,
            search=search,
        )
        return function(*args, where=where, **rest)

    for option in reversed(OPTIONS):
        command = option(command)
    return command


def pairs(given: Sequence[str]) -> dict[str, str]:
    """`name=value`, each. Raises Failure."""
    if wrong := next((pair for pair in given if "=" not in pair), None):
        raise Failure(f"{wrong!r} is not NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in given)


def must_be_one(where: TaskFilter) -> None:
    """A task is named: raises Failure where a filter is too."""
    if query_of(where):
        raise Failure("Name one task, or say by options which ones: not both.")


def query_of(where: TaskFilter) -> dict[str, Any]:
    """As REST takes it; what does not matter is left out."""
    query = {
        "state": [state.value for state in where.states],
        "tag": list(where.tags),
        "metadata": [f"{name}={value}" for name, value in where.metadata.items()],
        "repository": where.repository,
        "search": where.search,
    }
    return {name: value for name, value in query.items() if value}
