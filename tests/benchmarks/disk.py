"""Events per second to disk: the agent's own journal, one transaction a group, beside a bare append and fdatasync."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import calls

from agent.operations.commit_group import to_batches
from agent.store.journal import Write, open_journal
from protocol.events import Charge, UsageEvent

GROUPS = (1, 100, 1_000)


@dataclass(frozen=True)
class DiskFigures:
    """One way of writing, one size of group; medians over the rounds."""

    events_per_s: float
    commit_p50_us: float


def measure(directory: Path, seconds: float, rounds: int, seed: int) -> dict[str, dict[int, DiskFigures]]:
    """``journal`` and ``fdatasync``, by size of group; in a new random order each round."""
    journal = open_journal(directory)
    bare = os.open(directory / "bare-append", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    first = 1

    def to_journal(events: list[UsageEvent]) -> None:
        nonlocal first
        # The outbox is emptied as the control plane confirms: here all but the last group, in the same transaction.
        journal.write(Write(batches=to_batches(events, 1, first, 0), high_water={1: first - 1}))
        first += len(events)

    def to_bare_file(events: list[UsageEvent]) -> None:
        os.write(bare, bytes(_bytes_of[len(events)]))
        os.fdatasync(bare)

    _bytes_of = {size: sum(len(batch.body) for batch in to_batches(_events(size), 1, 1, 0)) for size in GROUPS}
    ways = {"journal": to_journal, "fdatasync": to_bare_file}
    taken: dict[tuple[str, int], list[DiskFigures]] = {(way, size): [] for way in ways for size in GROUPS}
    order = random.Random(seed)
    try:
        for _ in range(rounds):
            for way, size in order.sample(sorted(taken), len(taken)):
                taken[way, size].append(_one(ways[way], _events(size), seconds))
    finally:
        journal.close()
        os.close(bare)
    return {way: {size: _middle(taken[way, size]) for size in GROUPS} for way in ways}


def _one(write: Callable[[list[UsageEvent]], None], events: list[UsageEvent], seconds: float) -> DiskFigures:
    took_ns: list[int] = []
    begun_ns = time.perf_counter_ns()
    while (now_ns := time.perf_counter_ns()) - begun_ns < seconds * 1e9:
        write(events)
        took_ns.append(time.perf_counter_ns() - now_ns)
    per_s = len(took_ns) * len(events) / ((now_ns - begun_ns) / 1e9)
    return DiskFigures(per_s, median(took_ns) / 1_000)


def _middle(figures: list[DiskFigures]) -> DiskFigures:
    return DiskFigures(median(one.events_per_s for one in figures), median(one.commit_p50_us for one in figures))


def _events(count: int) -> list[UsageEvent]:
    """What settling the calls of the other measurements leaves behind, each charged to three leases."""
    amounts = dict(zip(calls.METERS, calls.USED, strict=True))
    return [
        UsageEvent(
            event=f"run0123abcd-{number:010x}",
            customer=calls.customer(number % calls.CUSTOMERS),
            feature=calls.FEATURE,
            at_ms=1_790_000_000_000 + number,
            amounts=amounts,
            charges=tuple(Charge(f"lease-{n}-{number % 97:020x}", used) for n, used in enumerate(calls.USED)),
            version=3,
        )
        for number in range(count)
    ]
