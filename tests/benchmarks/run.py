"""Measures the agent beside a bare echo and beside Redis in one run: `make bench`, or `run.py [--quick] [--json PATH]`.

Installs and compiles what it needs, starts real processes, warms them up, measures in interleaved rounds, prints tables
and writes `var/bench/report.json`. Nothing here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import processes
import provision

ROOT = provision.HERE.parents[1]
OUTPUT = ROOT / "var" / "bench"


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    warm_up_rounds: int


FULL = Plan(rounds=5, seconds=0.6, warm_up_rounds=2)
QUICK = Plan(rounds=1, seconds=0.15, warm_up_rounds=1)


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--json", type=Path, default=OUTPUT / "report.json", help="where the report goes")
    parser.add_argument("--seed", type=int, default=1, help="of the order in each round")
    options = parser.parse_args()
    begun = time.monotonic()
    processes.clean_up_on_sigterm()
    if not provision.install(*provision.PACKAGES):
        raise SystemExit("pip cannot install " + ", ".join(provision.PACKAGES))
    report = everything(QUICK if options.quick else FULL, options.seed)
    report["seconds"] = round(time.monotonic() - begun)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    import tables

    tables.show(report)
    provision.say(f"{report['seconds']} s; report: {options.json}")
    return 0


def everything(plan: Plan, seed: int) -> dict[str, Any]:
    """Everything, one part after the other on an otherwise quiet machine, as far as it is ours."""
    import contenders
    import disk
    import measure
    import memory
    import python_callers

    programs = provision.build("echo", "load")
    redis_server = provision.redis_server()
    with work_directory() as (work, sockets), contextlib.ExitStack() as stack:
        agent = stack.enter_context(memory.idle_agent(work, sockets))
        weights = {"bare Python": memory.bare_python(work), "agent, idle": agent.process.memory_kib()}
        echo = stack.enter_context(contenders.echo(programs["echo"], sockets, work))
        redis, durable = (
            stack.enter_context(contenders.redis(redis_server, sockets, work, durable=durable))
            for durable in (False, True)
        )
        everyone = [echo, redis, durable, *contenders.agent(agent)]
        provision.say("warming up")
        agent.wait_for_leases()
        measure.warm_up(programs["load"], everyone, plan.seconds, plan.warm_up_rounds, work)
        samples = measure.measure(programs["load"], everyone, plan.seconds, plan.rounds, work, seed)
        weights["agent, after the load"] = agent.process.memory_kib()
        provision.say("from Python")
        from_python = python_callers.measure(
            {"allotment": agent.frames, "redis": redis.socket}, plan.seconds, plan.rounds, seed
        )
        agent.wait_for_upload(60.0)
        stack.close()  # the disk is measured alone
        provision.say("events to disk")
        to_disk = disk.measure(work, plan.seconds / 2, plan.rounds, seed)
    return {
        "machine": machine(),
        "redis": provision.version_of(redis_server),
        "method": f"{plan.rounds} interleaved rounds of {plan.seconds} s, medians; ratios within a round",
        "contenders": contenders.EXPLAINED,
        "socket": samples.as_report(
            [one.name for one in everyone], (contenders.ECHO, contenders.REDIS, contenders.REDIS_DURABLE)
        ),
        "python": python_report(from_python),
        "disk": {way: {str(size): asdict(one) for size, one in by.items()} for way, by in to_disk.items()},
        "memory": weights,
    }


@contextlib.contextmanager
def work_directory() -> Iterator[tuple[Path, Path]]:
    """A directory on the project's disk for journals and databases, and one with a short path for sockets."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=OUTPUT))
    sockets = Path(tempfile.mkdtemp(prefix="allotment-"))
    try:
        yield work, sockets
    finally:
        for one in (work, sockets):
            shutil.rmtree(one, ignore_errors=True)


def python_report(figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and the median of the rounds' ratios."""
    report: dict[str, Any] = {}
    for kind, rounds in figures.items():
        row: dict[str, Any] = {
            step: {cut: median(one[step][cut] for one in rounds) for cut in ("p50_us", "p99_us")}
            for step in ("reserve", "settle")
        }
        row["client_cpu_us"] = median(one["client_cpu_us"] for one in rounds)
        row["wrong"] = sum(one["wrong"] for one in rounds)
        report[kind] = row
    pairs = zip(figures["allotment"], figures["redis"], strict=True)
    ratio = median(one["reserve"]["p50_us"] / other["reserve"]["p50_us"] for one, other in pairs)
    report["allotment"]["reserve_p50_to_redis"] = ratio
    return report


def machine() -> str:
    """What it ran on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}, load {load}"


if __name__ == "__main__":
    sys.exit(main())
