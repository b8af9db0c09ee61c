from __future__ import annotations

from pathlib import Path

import duckdb

from services.history import code


def resident_kib() -> int:
    """Of DuckDB's code in this process."""
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *words = line.split()
        if not name.endswith(":"):
            inside = words[0] == code.EXECUTABLE and code.LIBRARY in line
        elif inside and name == "Rss:":
            size += int(words[0])
    return size


def test_code_that_was_let_go_is_there_again_when_it_is_needed() -> None:
    with duckdb.connect() as connection:
        question = "SELECT sum(n) FROM range(1000) AS t(n)"
        assert connection.execute(question).fetchall() == [(499500,)]
        before = resident_kib()
        assert before > 1024
        code.let_go()
        assert resident_kib() < before / 4
        assert connection.execute(question).fetchall() == [(499500,)]
