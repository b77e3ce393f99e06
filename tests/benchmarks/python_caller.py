"""One Python thread that asks the agent through `allotment.Client`, or Redis through redis-py; prints one JSON line.

Usage: python_caller.py allotment|redis SOCKET SECONDS. Started by python_callers.py, a fresh process for each run.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import calls

CALLS_MIN = 20


def allotment_steps(socket: str) -> dict[str, Callable[[str, str], bool]]:
    """Reserve and settle through the blocking client."""
    import allotment

    client = allotment.Client(socket)
    held, used = dict(zip(calls.METERS, calls.HELD, strict=True)), dict(zip(calls.METERS, calls.USED, strict=True))

    def reserve(who: str, reservation: str) -> bool:
        return client.reserve(who, calls.FEATURE, user="user-1", reservation=reservation, amounts=held).allowed

    def settle(_: str, reservation: str) -> bool:
        return client.settle(reservation, amounts=used).event == reservation

    return {"reserve": reserve, "settle": settle}


def redis_steps(socket: str) -> dict[str, Callable[[str, str], bool]]:
    """The same in Lua, by the digests of scripts that are loaded already."""
    from contenders import load_scripts
    from redis import Redis

    first, second = load_scripts(Path(socket))
    ask = Redis(unix_socket_path=socket).evalsha
    held, used = (*calls.HELD, 600_000), calls.USED

    def reserve(who: str, reservation: str) -> bool:
        return bool(ask(first, 4, *_counters[who], f"reservation:{reservation}", *held) == 1)

    def settle(who: str, reservation: str) -> bool:
        return bool(ask(second, 4, *_counters[who], f"reservation:{reservation}", *used) == 1)

    return {"reserve": reserve, "settle": settle}


_counters = {calls.customer(n): calls.redis_keys("", calls.customer(n))[:3] for n in range(calls.CUSTOMERS)}


def run(steps: dict[str, Callable[[str, str], bool]], seconds: float) -> dict[str, object]:
    """Call after call until the time is over; latency of each step and this process's own CPU for each."""
    took_ns: dict[str, list[int]] = {name: [] for name in steps}
    prefix, number, wrong = secrets.token_hex(6), 0, 0
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    cpu_ns = time.process_time_ns()
    while time.perf_counter_ns() < end_ns or number < CALLS_MIN:
        who, reservation = calls.customer(number % calls.CUSTOMERS), f"{prefix}-{number}"
        number += 1
        for name, step in steps.items():
            begun_ns = time.perf_counter_ns()
            right = step(who, reservation)
            took_ns[name].append(time.perf_counter_ns() - begun_ns)
            wrong += not right
    cpu_ns = time.process_time_ns() - cpu_ns
    figures: dict[str, object] = {
        "calls": number,
        "wrong": wrong,
        "client_cpu_us": cpu_ns / 1_000 / number / len(steps),
    }
    for name, values in took_ns.items():
        cuts = quantiles(values, n=100)
        figures[name] = {"p50_us": cuts[49] / 1_000, "p99_us": cuts[98] / 1_000}
    return figures


if __name__ == "__main__":
    kind, path, how_long = sys.argv[1:]
    both = {"allotment": allotment_steps, "redis": redis_steps}
    print(json.dumps(run(both[kind](path), float(how_long))))  # noqa: T201
