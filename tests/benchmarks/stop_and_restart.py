"""Measures how fast an agent's leases come home: after SIGTERM, and after SIGKILL and a new start on the same disk.

Usage: stop_and_restart.py [--leases 1000,10000] [--json FILE]. A real control plane on SQLite, one real agent, and one
lease for each user. *Stopped*: from SIGTERM until the agent's process has ended; every lease is closed then, and all
that was used is posted. *Settled*: from the new start's first answer on its socket until the control plane has heard
from it what the killed one used of every lease. Exits 0 only if the books say so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
import stand
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import work_directory

from protocol.codec import encode_msgpack
from protocol.events import Subject
from protocol.framing import FrameReader, frame
from protocol.local_messages import Call, Reserve, Settle

CUSTOMER, FEATURE = "acme", "chat"
AT_ONCE = 200
PATIENCE_S = 120.0


def load(plane: stand.ControlPlane) -> None:
    """A plan with a limit for each user, so that each user's calls need a lease of their own."""
    plane.put(f"/v1/features/{FEATURE}", {"name": "Chat", "kind": "metered"})
    limit = {"key": "per-user", "meter": "requests", "amount": 1_000_000, "window": "month", "scope": "user"}
    plane.put("/v1/plans/many", {"name": "Many", "features": [{"feature": FEATURE}], "limits": [limit]})
    plane.put(f"/v1/customers/{CUSTOMER}", {"name": CUSTOMER})
    plane.put(f"/v1/customers/{CUSTOMER}/subscription", {"plan": "many", "status": "active"})


def use(agent: stand.Agent, leases: int) -> None:
    """One call of each user, reserved and settled; each is answered once its lease is there."""
    reader = FrameReader()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(agent.frames))
        for first in range(0, leases, AT_ONCE):
            batch = range(first, min(first + AT_ONCE, leases))
            for kind in (_reserve, _settle):
                connection.sendall(b"".join(frame(encode_msgpack(kind(number))) for number in batch))
                answers = 0
                while answers < len(batch):
                    chunk = connection.recv(1 << 16)
                    if not chunk:
                        raise processes.TroubleError("the agent closed the connection")
                    answers += len(list(reader.feed(chunk)))


def _call(number: int) -> Call:
    return Call(customer=CUSTOMER, feature=FEATURE, subject=Subject(user=f"u{number}"))


def _reserve(number: int) -> Reserve:
    wait_ms = 60_000  # a first lease is waited for
    return Reserve(reservation=f"r{number}", call=_call(number), amounts={"requests": 1}, deadline_ms=wait_ms)


def _settle(number: int) -> Settle:
    return Settle(reservation=f"r{number}", amounts={"requests": 1})


@dataclass(frozen=True)
class Books:
    """What the control plane has: leases that are not closed, those of them that the newest start has spoken of, and
    what it knows to be used, posted or settled."""

    open: int
    told: int
    used: int


def books(database: Path, boot: int) -> Books:
    """As committed now."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        is_open, told, settled = connection.execute(
            "SELECT count(*), coalesce(sum(boot = ?), 0), coalesce(sum(settled), 0) FROM leases"
            " WHERE status <> 'closed'",
            (boot,),
        ).fetchone()
        (posted,) = connection.execute("SELECT coalesce(sum(posted), 0) FROM allowances").fetchone()
    return Books(is_open, told, settled + posted)


def measure(leases: int, kill: bool) -> dict[str, Any]:
    """One agent that holds so many leases, ended one way or the other."""
    with work_directory() as (work, sockets):
        plane = stand.start_control_plane(work)
        agent = stand.Agent("0", work / "agent", sockets, plane)
        try:
            load(plane)
            agent.start()
            use(agent, leases)
            database = work / "control-plane.db"
            before = books(database, boot=1)
            if kill:
                agent.process.process.kill()
                agent.process.process.wait()
                agent.start()
                started = time.monotonic()
                processes.wait_until(
                    "every lease is spoken of", lambda: _all_told(database), PATIENCE_S, agent.process, every_s=0.02
                )
            else:
                started = time.monotonic()
                agent.process.process.send_signal(signal.SIGTERM)
                agent.process.process.wait(PATIENCE_S)
            seconds = time.monotonic() - started
            after = books(database, boot=2)
        finally:
            agent.end()
            plane.process.end()
    good = before.open >= leases and after.used == leases and (kill or after.open == 0)
    return {"leases": leases, "open": before.open, "killed": kill, "seconds": round(seconds, 3), "good": good}


def _all_told(database: Path) -> bool:
    now = books(database, boot=2)
    return now.open == now.told


def main() -> int:
    """Measure both for each number of leases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", default="1000,10000", help="how many leases the agent holds (1000,10000)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    processes.clean_up_on_sigterm()
    found = [measure(int(number), kill) for number in given.leases.split(",") for kill in (False, True)]
    table = Table("leases", "open before", "ended by", "seconds until all are home", "books", box=SIMPLE_HEAD)
    for one in found:
        how = "SIGKILL, new start" if one["killed"] else "SIGTERM"
        table.add_row(f"{one['leases']:,}", f"{one['open']:,}", how, f"{one['seconds']:.2f}", _verdict(one))
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(one["good"] for one in found) else 1


def _verdict(one: dict[str, Any]) -> str:
    return "right" if one["good"] else "WRONG"


if __name__ == "__main__":
    sys.exit(main())
