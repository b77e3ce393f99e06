"""Kills a real agent with SIGKILL at random moments, under load from real clients, and then audits the ledger.

Usage: kill_rounds.py [--rounds 100] [--seed 1] [--callers 8]. Each round restarts the agent on the same data directory.
At the end everything is uploaded, and what callers were told was recorded is compared with what the control plane has
in its events and in its usage. Exits 0 only if nothing was lost and nothing was counted twice.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import calls
import processes
import provision
import stand
from callers import Caller, Usage
from run import OUTPUT, work_directory
from stand import Agent, ControlPlane

UPLOAD_S = 120.0
LIFE_MAX_S = 0.7
"""An agent is killed at most so long after it has answered again."""

UNBORN = 0.15
"""This part of the kills hits an agent that is still starting."""


@dataclass
class Audit:
    """What callers were told against what the control plane has.

    Attributes:
        acked: uses that callers were told are recorded.
        lost: of those, the ones that the ledger lacks, or has with less.
        duplicated: uses that the ledger has more than once, or with more than was said.
        in_doubt: uses that their callers gave up on without an answer; ``in_doubt_counted`` of them were counted.
        unexpected: events that no caller reported.
        refused: reservations that were not allowed, by why; every limit here is far away.
        conflicts: events that the control plane set aside, by why.
    """

    rounds: int
    kills: int
    acked: int
    lost: int
    duplicated: int
    in_doubt: int
    in_doubt_counted: int
    unexpected: int
    repeated_after_ack: int
    refused: dict[str, int]
    released: int
    conflicts: dict[str, int]
    usage_equals_events: bool
    seconds: int


def main() -> int:
    """Run the rounds, audit, print; 0 if nothing was lost or duplicated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--json", type=Path, default=OUTPUT / "kill-rounds.json")
    options = parser.parse_args()
    processes.clean_up_on_sigterm()
    with work_directory() as (work, sockets):
        plane = stand.start_control_plane(work)
        try:
            stand.load_catalog(plane, calls.CUSTOMERS)
            agent = Agent("killed", work / "agent", sockets / "agent", plane)
            audit = run_rounds(agent, options.rounds, options.callers, options.seed)
        finally:
            plane.process.end()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(asdict(audit), indent=2) + "\n")
    for name, value in asdict(audit).items():
        sys.stdout.write(f"{name.replace('_', ' '):20} {value}\n")
    return 0 if audit.lost == audit.duplicated == audit.unexpected == 0 and audit.usage_equals_events else 1


def run_rounds(agent: Agent, rounds: int, threads: int, seed: int) -> Audit:
    """Kill and restart under load, let everything settle, and compare."""
    from allotment import Client

    begun, stop, moments = time.monotonic(), threading.Event(), random.Random(seed)
    try:
        agent.start()
        with Client(str(agent.frames)) as client:
            crowd = [Caller(client, f"caller-{n}", seed * 1_000 + n, stop) for n in range(threads)]
            for caller in crowd:
                caller.start()
            kills = kill_again_and_again(agent, crowd, rounds, moments)
            stop.set()
            for caller in crowd:
                caller.join(60.0)
                if caller.failure is not None or caller.is_alive():
                    raise agent.process.trouble(f"{caller.name} failed: {caller.failure!r}")
                caller.clear_all_doubts()
        provision.say("uploading what is left")
        agent.wait_for_upload(UPLOAD_S)
    finally:
        stop.set()
        agent.end()
    audit = compare(agent.plane, crowd)
    audit.rounds, audit.kills, audit.seconds = rounds, kills, round(time.monotonic() - begun)
    return audit


def kill_again_and_again(agent: Agent, crowd: list[Caller], rounds: int, moments: random.Random) -> int:
    """Each round: a random moment, SIGKILL, a new start on the same directory. Returns how many agents died."""
    kills = 0
    for number in range(1, rounds + 1):
        time.sleep(moments.uniform(0, LIFE_MAX_S))  # the moment is the experiment
        kills += kill(agent)
        while moments.random() < UNBORN:
            agent.spawn()
            time.sleep(moments.uniform(0, LIFE_MAX_S))
            kills += kill(agent)
        agent.start()
        if number % 5 == 0 or number == rounds:
            acked = sum(usage.acked for caller in crowd for usage in list(caller.usages.values()))
            provision.say(f"round {number} of {rounds}: {kills} kills, {acked} acknowledged")
        for caller in crowd:
            if caller.failure is not None:
                raise agent.process.trouble(f"{caller.name} failed: {caller.failure!r}")
    return kills


def kill(agent: Agent) -> int:
    """SIGKILL, and wait until it is gone."""
    if not agent.process.alive:
        raise agent.process.trouble(f"ended by itself with {agent.process.process.returncode}")
    agent.process.process.kill()
    agent.process.process.wait(processes.END_S)
    return 1


def compare(plane: ControlPlane, crowd: list[Caller]) -> Audit:
    """Every use by every caller against the events and the usage of its customer."""
    said: dict[str, Usage] = {name: usage for caller in crowd for name, usage in caller.usages.items()}
    counted: dict[str, list[dict[str, int]]] = {}
    usage_equals_events = True
    for number in range(calls.CUSTOMERS):
        who = calls.customer(number)
        events = [item["usage"] for item in plane.get_all(f"/v1/customers/{who}/events")]
        for event in events:
            counted.setdefault(event.get("corrects") or event["event"], []).append(event["amounts"])
        usage_equals_events &= used(plane, who) == total([event["amounts"] for event in events])
    fine = {name: total(counted.get(name, [])) for name in said}
    acked = {name for name, usage in said.items() if usage.acked}
    doubted = said.keys() - acked
    return Audit(
        rounds=0, kills=0, seconds=0,
        acked=len(acked),
        lost=sum(less(fine[name], said[name].amounts) for name in acked),
        duplicated=sum(less(said[name].amounts, fine[name]) or len(counted.get(name, [])) > 1 for name in said),
        in_doubt=len(doubted),
        in_doubt_counted=sum(name in counted for name in doubted),
        unexpected=len(counted.keys() - said.keys()),
        repeated_after_ack=sum(caller.repeated for caller in crowd),
        refused=dict(sum((caller.refused for caller in crowd), Counter())),
        released=sum(caller.released for caller in crowd),
        conflicts=dict(Counter(item["code"] for item in plane.get_all("/v1/event-conflicts"))),
        usage_equals_events=usage_equals_events,
    )  # fmt: skip


def used(plane: ControlPlane, who: str) -> dict[str, int]:
    """Usage by meter as a bill would have it, of today and the days beside it."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = [(now + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (-1, 1)]
    report: dict[str, Any] = plane.get(f"/v1/customers/{who}/usage?from={span[0]}&to={span[1]}&group_by=meter")
    return {item["meter"]: item["quantity"] for item in report["items"] if item["quantity"]}


def less(these: dict[str, int], than_those: dict[str, int]) -> bool:
    """Whether any meter falls short."""
    return any(these.get(meter, 0) < quantity for meter, quantity in than_those.items())


def total(amounts: list[dict[str, int]]) -> dict[str, int]:
    """Sums by meter, zeros left out."""
    sums: dict[str, int] = {}
    for one in amounts:
        for meter, quantity in one.items():
            sums[meter] = sums.get(meter, 0) + quantity
    return {meter: quantity for meter, quantity in sums.items() if quantity}


if __name__ == "__main__":
    sys.exit(main())
