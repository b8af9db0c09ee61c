from __future__ import annotations

from typing import Any

import click

from protocol.history import ROWS_LIMIT
from services.cli.options import Place, client_command


@client_command("sql")
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Answer in CSV.")
@click.option("--limit", type=click.IntRange(1, ROWS_LIMIT), default=1_000, show_default=True, help="Rows at most.")
def command(place: Place, query: str, as_csv: bool, limit: int) -> int:
    """Ask the history in SQL (the owner).

    QUERY is one SELECT; `-` reads it from stdin. The answer contains all that this machine has seen of its tasks.
    """
    from protocol.history import SqlAnswer
    from services.cli.api import path, read
    from services.cli.failure import Failure
    from services.cli.given import given
    from services.cli.tables import print_csv, print_table
    from services.cli.text import safe_json

    if as_csv and place.as_json:
        raise click.UsageError("Choose one of --json and --csv.")
    sql = given(query)
    if not sql.strip():
        raise Failure("The query is empty.")
    content = place.api.post(path("sql"), {"sql": sql, "at_least": place.account.seen, "limit": limit})
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    answer = read(content, SqlAnswer)
    rows: list[list[Any]] = [list(row) for row in answer.rows]
    (print_csv if as_csv else print_table)(answer.columns, rows)
    if answer.more:
        click.echo(f"There are more rows than {len(rows)}: `--limit` shows up to {ROWS_LIMIT}.", err=True)
    return 0
