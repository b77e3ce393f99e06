"""Measures how fast a change reaches every host: a real control plane, and a fleet of real agents over loopback.

Usage: convergence.py [--agents 200] [--rounds 5] [--pause 8] [--json FILE]. A customer is paused, resumed, downgraded
to a plan that gives nothing and upgraded again; each time it is measured how long after the admin's request was
*sent* the decisions of each agent changed. They hear of it by their hanging watch. Between two changes is a pause of
some seconds, in which leases go home: with ``--pause 0`` a change comes while hosts are busy with the one before.
Exits 0 only if all heard of every change.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import processes
import stand
from processes import Running
from provision import say
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from run import OUTPUT, work_directory
from stand import ControlPlane

CUSTOMER, FEATURE = "acme", "chat"
PARTS = 4
PATIENCE_S = 30.0

Heard = dict[int, tuple[str, int]]
"""By agent: the answer it gives now, and since when (monotonic nanoseconds)."""


class Fleet:
    """Agents in a few processes, and what they answer."""

    def __init__(self, agents: int, plane: ControlPlane, work: Path, undo: ExitStack) -> None:
        self.size = agents
        self.heard: Heard = {}
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._parts: list[Running] = []
        share = -(-agents // PARTS)
        for first in range(0, agents, share):
            count = min(share, agents - first)
            command = [sys.executable, str(Path(__file__).with_name("fleet.py")), str(work), plane.url]
            command += [str(first), str(count), CUSTOMER, FEATURE]
            log = work / f"fleet-{first}.log"
            part = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log.open("wb"),
                env={**os.environ, "ALLOTMENT_JOIN_TOKEN": plane.join_token, "PYTHONPATH": str(Path.cwd())},
            )
            undo.callback(_end, part)
            self._parts.append(Running(f"fleet-{first}", part, log))
            threading.Thread(target=self._read, args=(part,), daemon=True).start()

    def _read(self, part: subprocess.Popen[bytes]) -> None:
        assert part.stdout is not None
        for line in part.stdout:
            self._lines.put(json.loads(line))

    def wait_for(self, code: str, since_ns: int) -> list[float]:
        """Until every agent answers so: how many milliseconds after ``since_ns`` each began to.

        Raises: TroubleError: not all do in time, or a process of theirs has ended.
        """
        deadline = time.monotonic() + PATIENCE_S
        while len(agreeing := [at for said, at in self.heard.values() if said == code]) < self.size:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self._parts[0].trouble(f"only {len(agreeing)} of {self.size} agents answer {code!r}")
            for part in self._parts:
                if not part.alive:
                    raise part.trouble(f"ended with {part.process.returncode}")
            try:
                said = self._lines.get(timeout=min(left_s, 1.0))
            except queue.Empty:
                continue
            self.heard[said["agent"]] = (said["code"], said["at_ns"])
        return sorted((at - since_ns) / 1e6 for at in agreeing)


def _end(part: subprocess.Popen[bytes]) -> None:
    assert part.stdin is not None
    part.stdin.close()
    try:
        part.wait(10)
    except subprocess.TimeoutExpired:
        part.kill()
        part.wait()


def _catalog(plane: ControlPlane) -> None:
    plane.put(f"/v1/features/{FEATURE}", {"name": "Chat", "kind": "metered"})
    for plan, amount in (("large", 1_000_000_000), ("nothing", 0)):
        limit = {"key": "output", "meter": "output_tokens", "amount": amount, "window": "lifetime"}
        plane.put(f"/v1/plans/{plan}", {"name": plan, "features": [{"feature": FEATURE}], "limits": [limit]})
    plane.put(f"/v1/customers/{CUSTOMER}", {"name": CUSTOMER})
    _subscribe(plane, "large")


def _subscribe(plane: ControlPlane, plan: str, status: str = "active") -> None:
    plane.put(f"/v1/customers/{CUSTOMER}/subscription", {"plan": plan, "status": status})


CHANGES: dict[str, tuple[Callable[[ControlPlane], None], str]] = {
    "pause": (lambda plane: _subscribe(plane, "large", "paused"), "subscription_paused"),
    "resume": (lambda plane: _subscribe(plane, "large"), "ok"),
    "downgrade": (lambda plane: _subscribe(plane, "nothing"), "requested_usage_exceeds_limit"),
    "upgrade": (lambda plane: _subscribe(plane, "large"), "ok"),
}


def main() -> int:
    """Measure, print, write; 0 if every agent heard of every change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between two changes")
    parser.add_argument("--json", type=Path, default=OUTPUT / "convergence.json")
    options = parser.parse_args()
    processes.clean_up_on_sigterm()
    delays: dict[str, list[float]] = {name: [] for name in CHANGES}
    with work_directory() as (work, _sockets), ExitStack() as undo:
        plane = stand.start_control_plane(work)
        undo.callback(plane.process.end)
        _catalog(plane)
        say(f"starting {options.agents} agents")
        begun = time.monotonic_ns()
        fleet = Fleet(options.agents, plane, work, undo)
        first = fleet.wait_for("ok", begun)
        for _ in track(range(options.rounds), "changing the plan", console=Console(stderr=True)):
            for name, (change, code) in CHANGES.items():
                time.sleep(options.pause)
                sent = time.monotonic_ns()
                change(plane)
                delays[name] += fleet.wait_for(code, sent)
    report = {
        "agents": options.agents,
        "rounds": options.rounds,
        "pause_s": options.pause,
        "first_lease_ms": _summary(first),
    }
    report["changes"] = {name: _summary(sorted(found)) for name, found in delays.items()}
    _show(report)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _summary(found: list[float]) -> dict[str, float]:
    at = {"p50": len(found) // 2, "p99": len(found) * 99 // 100, "max": len(found) - 1}
    return {"samples": len(found), **{name: round(found[place], 1) for name, place in at.items()}}


def _show(report: dict[str, Any]) -> None:
    title = f"A change in force on {report['agents']} agents, milliseconds after the admin's request was sent"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for name in ("samples", "p50", "p99", "max"):
        table.add_column(name, justify="right")
    rows = {**report["changes"], "all agents started at once, first lease": report["first_lease_ms"]}
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:,.0f}" for column in ("samples", "p50", "p99", "max")))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
