from __future__ import annotations

import json
import platform
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click

from services.cli.account import Account, data_folder, save, server_url
from services.cli.failure import Failure
from services.cli.options import json_option

WRONG_LINK = (
    "This is not a sign-in link. It looks like https://server:8420/#code=…: `errand up` shows the first, and any "
    "device that is signed in, with GitHub too, makes one on the page's settings or by `errand user link`."
)


@click.command("login")
@click.argument("link")
@click.option("--name", default="", help="What this device is called; otherwise the machine's name.")
@json_option
def command(link: str, name: str, as_json: bool) -> int:
    """Sign this machine in by a link.

    LINK is what `errand up`, `errand user add` or `errand user link` shows. It works once; `-` reads it from stdin.
    """
    from services.cli.api import Api, path, read
    from services.cli.text import one_line

    server, code = parse_link(sys.stdin.readline() if link == "-" else link)
    device = {"code": code, "device_name": name or platform.node() or "errand"}
    with Api(Account(server=server, token="")) as api:
        signed_in = read(api.post(path("sign-in"), device), dict[str, Any])
    token = signed_in.get("token")
    if not isinstance(token, str) or not token:
        raise Failure(f"{server} gave no token: is it an Errand server?")
    account = Account(server=server, token=token)
    save(data_folder(), account)
    with Api(account) as api:
        me = read(api.get(path("me")), dict[str, Any])
    who = {field: one_line(str(me.get(field, ""))) for field in ("user", "name", "role")}
    if as_json:
        click.echo(json.dumps({"server": server, **who}))
    else:
        click.echo(f"Signed in to {server} as {who['name'] or who['user']} ({who['role']}).")
    return 0


def parse_link(link: str) -> tuple[str, str]:
    """The server's address and the one-time code."""
    try:
        parts = urlsplit(link.strip())
        codes = parse_qs(parts.fragment).get("code", [])
    except ValueError:
        codes, parts = [], urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or len(codes) != 1:
        raise Failure(WRONG_LINK)
    return server_url(parts._replace(fragment="", query="").geturl()), codes[0]
