"""What several commands take, said once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.account import Account, data_folder, find, remember

if TYPE_CHECKING:
    from services.cli.api import Api

F = TypeVar("F", bound=Callable[..., Any])


class Place:
    """Which server a command speaks to, found when it is first needed."""

    def __init__(self, server: str, as_json: bool) -> None:
        self.data: Path = data_folder()
        self.as_json = as_json
        self._server = server
        self._account: Account | None = None
        self._api: Api | None = None

    @property
    def account(self) -> Account:
        if self._account is None:
            self._account = find(self.data, self._server)
        return self._account

    @property
    def api(self) -> Api:
        """Open until the command ends."""
        if self._api is None:
            from services.cli.api import Api

            self._api = click.get_current_context().with_resource(Api(self.account))
        return self._api

    def remember(self, sequence: int) -> None:
        remember(self.data, self.account, sequence)


class _PlaceCommand(click.Command):
    """A command whose function takes a `place` instead of the options that make one."""

    def invoke(self, ctx: click.Context) -> Any:
        server, as_json = ctx.params.pop("server", "") or "", ctx.params.pop("as_json", False)
        ctx.params["place"] = Place(server, as_json)
        return super().invoke(ctx)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(function)


def key_option(what: str) -> Callable[[F], F]:
    """The idempotency key, empty where none was given. Who gives one that is empty has lost it, and would do twice what
    was to be done once."""

    def must_be_one(ctx: click.Context, parameter: click.Parameter, key: str | None) -> str:
        if key == "":
            raise click.BadParameter("it is empty: leave --key out, or give the key of the first try.")
        return key or ""

    told = f"The same key is the same {what}, however often it is sent."
    return click.option("--key", callback=must_be_one, help=told)


def client_command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that speaks to a server: `place` is its first argument."""

    def make(function: Callable[..., Any]) -> click.Command:
        made = click.command(name, cls=_PlaceCommand, **settings)(function)
        made.params += [
            click.Option(["--server"], metavar="URL", help="Otherwise ERRAND_SERVER, or the one signed in to."),
            click.Option(["--json", "as_json"], is_flag=True, help="Answer in JSON."),
        ]
        return made

    return make


def is_terminal(number: int) -> bool:
    """Whether a person is at this file descriptor."""
    try:
        return os.isatty(number)
    except OSError:
        return False
