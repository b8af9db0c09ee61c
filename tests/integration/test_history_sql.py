"""SQL over a snapshot: what an analyst asks is answered, what an attacker asks is refused or killed, nothing leaks."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from protocol.base import encode
from protocol.history import RunSql, SqlAnswer
from services.bus import Refused, Stored
from services.history.database import Database, shipped_views
from services.history.fold import fold
from services.history.sql import Limits, ask_snapshot
from tests.integration.history_world import SECRETS, random_stream, recompute

pytestmark = pytest.mark.anyio
LIMITS = Limits(seconds=10, memory_mib=256)
RAW = [(sequence, subject, encode(message)) for sequence, (_, subject, message) in enumerate(random_stream(7, 30), 1)]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    database = Database(folder / "history.duckdb")
    at = random_stream(7, 1)[0][2].at
    database.write(fold([Stored(subject, sequence, data, at) for sequence, subject, data in RAW], {}))
    path = folder / "snapshot" / "history.duckdb"
    assert database.copy_to(path) == len(RAW)
    database.close()
    return path


async def ask(snapshot: Path, sql: str, *, limit: int = 1_000, limits: Limits = LIMITS) -> SqlAnswer:
    return await ask_snapshot(snapshot, RunSql(sql=sql, limit=limit), limits)


async def test_an_answer_has_columns_rows_and_the_sequence_reached(snapshot: Path) -> None:
    answer = await ask(snapshot, "SELECT kind, count(*) AS n FROM events GROUP BY kind ORDER BY kind")
    events = recompute(RAW)["events"]
    kinds = sorted({event["kind"] for event in events})
    assert answer.columns == ("kind", "n")
    assert answer.rows == tuple((kind, sum(event["kind"] == kind for event in events)) for kind in kinds)
    assert (answer.sequence, answer.more) == (len(RAW), False)


async def test_every_shipped_view_answers_and_says_what_it_is(snapshot: Path) -> None:
    comments = await ask(snapshot, "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
    described = dict(comments.rows)
    for name, _ in shipped_views():
        assert described[name].endswith(".")
        assert (await ask(snapshot, f"FROM {name}")).rows, name


async def test_every_table_says_what_it_is(snapshot: Path) -> None:
    answer = await ask(snapshot, "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND comment IS NULL")
    assert answer.rows == ()


VALUES: tuple[tuple[str, object], ...] = (
    ("TIMESTAMPTZ '2026-01-02 03:04:05+01'", "2026-01-02T02:04:05Z"),
    ("TIMESTAMP '2026-01-02 03:04:05'", "2026-01-02T03:04:05"),
    ("DATE '2026-01-02'", "2026-01-02"),
    ("1.50::DECIMAL(9, 2)", "1.50"),
    ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
    ("'nan'::DOUBLE", "nan"),
    ("'-inf'::DOUBLE", "-inf"),
    ("'\\x00\\xff'::BLOB", "AP8="),
    ("[1, NULL, 3]", [1, None, 3]),
    ("{'a': {'b': [DATE '2026-01-02']}}", {"a": {"b": ["2026-01-02"]}}),
    ("MAP {1: 'x'}", {"1": "x"}),
    ('\'{"a": [1, "☎"]}\'::JSON::VARIANT', {"a": [1, "☎"]}),
    ("INTERVAL 1 DAY", "P1D"),
    ("NULL", None),
)


async def test_every_kind_of_value_comes_as_json(snapshot: Path) -> None:
    [row] = (await ask(snapshot, "SELECT " + ", ".join(sql for sql, _ in VALUES))).rows
    for (sql, wanted), value in zip(VALUES, row, strict=True):
        assert value == wanted, sql


async def test_an_answer_is_cut_at_its_limits_and_says_so(snapshot: Path) -> None:
    few = await ask(snapshot, "FROM range(10)", limit=3)
    assert (len(few.rows), few.more) == (3, True)
    exact = await ask(snapshot, "FROM range(3)", limit=3)
    assert (len(exact.rows), exact.more) == (3, False)
    large = await ask(snapshot, "SELECT repeat('x', 100000) FROM range(100)")
    assert (0 < len(large.rows) < 6, large.more) == (True, True)
    assert len(encode(large)) < 512 * 1024


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "Only one SELECT"),
        ("SELECT 1; SELECT 2", "Only one SELECT"),
        ("commit;", "Only one SELECT"),
        ("commit; DROP TABLE tasks", "Only one SELECT"),
        ("DELETE FROM tasks", "Only one SELECT"),
        ("CREATE TEMP TABLE x AS SELECT 1", "Only one SELECT"),
        ("WITH x AS (DELETE FROM tasks RETURNING 1) SELECT * FROM x", "read-only"),
        ("WITH x AS (INSERT INTO progress VALUES (9) RETURNING 1) FROM x", "read-only"),
        ("ATTACH '/tmp/other.duckdb'", "Only one SELECT"),
        ("COPY tasks TO '/tmp/stolen.csv'", "Only one SELECT"),
        ("EXPORT DATABASE '/tmp/stolen'", "Only one SELECT"),
        ("PRAGMA database_list", "Only one SELECT"),
        ("SET lock_configuration = false", "Only one SELECT"),
        ("SET enable_external_access = true", "Only one SELECT"),
        ("INSTALL httpfs", "Only one SELECT"),
        ("CALL enable_logging(storage = 'file')", "Only one SELECT"),
        ("SELECT * FROM query('COPY tasks TO ''/tmp/stolen.csv''')", "single SELECT"),
        ("FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("FROM read_text('/proc/self/environ')", "disabled by configuration"),
        ("FROM read_blob('/etc/passwd')", "disabled by configuration"),
        ("FROM '/etc/passwd.csv'", "does not exist|disabled by configuration"),
        ("FROM glob('/etc/*')", "disabled by configuration"),
        ("FROM sniff_csv('/etc/passwd')", "disabled by configuration"),
        ("FROM read_parquet('http://127.0.0.1/x')", "disabled by configuration|httpfs"),
        ("FROM question", "does not exist"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("SELECT unknown FROM tasks", 'Referenced column "unknown" not found'),
        ("SELEC 1", "syntax error"),
        ("SELECT " + "1," * 60_000 + "1", "limit is 100000"),
        ("SELECT repeat('x', 600000)", "One row has 600004 bytes"),
    ],
)
async def test_what_must_not_be_is_refused_in_a_sentence(snapshot: Path, sql: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        await ask(snapshot, sql)
    assert "Traceback" not in refused.value.reason


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7",
    ],
)
async def test_an_endless_query_is_stopped(snapshot: Path, sql: str) -> None:
    with pytest.raises(Refused, match="stopped after 1 s"):
        await ask(snapshot, sql, limits=Limits(seconds=1, memory_mib=256))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(repeat('x', 1000), ',') FROM range(10000000)",
        "SELECT length(repeat('x', 2000000000))",
        "SELECT count(*) FROM (SELECT DISTINCT range, hash(range) FROM range(1000000000))",
    ],
)
async def test_a_query_that_wants_all_memory_ends_by_itself(snapshot: Path, sql: str) -> None:
    with pytest.raises(Refused, match=r"Memory|memory"):
        await ask(snapshot, sql)


async def test_no_secret_and_no_setting_can_be_selected(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRAND_NATS_PASSWORD_FILE", "/the/password/file")
    everything = ""
    for sql in (
        "FROM duckdb_settings()",
        "FROM duckdb_variables()",
        "FROM events WHERE source = 'user'",
        "FROM users",
        "FROM receipts WHERE task_id IS NULL",
    ):
        everything += encode(await ask(snapshot, sql, limit=10_000)).decode()
    assert "my phone" in everything
    assert not [secret for secret in (*SECRETS, "/the/password/file", str(Path.cwd())) if secret in everything]
    assert not [secret for secret in SECRETS if secret.encode() in snapshot.read_bytes()]


async def test_a_snapshot_can_be_opened_by_the_duckdb_command_line_of_today(snapshot: Path) -> None:
    with duckdb.connect(str(snapshot), read_only=True) as connection:
        [(tags,)] = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'history'").fetchall()
    assert tags["storage_version"].startswith("v1.5")
