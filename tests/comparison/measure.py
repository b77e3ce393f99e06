"""One cell of the comparison: one policy on one fleet, and everything that is measured of it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

from tests.comparison.callers import Callers, Policy
from tests.comparison.clock import Clock
from tests.comparison.ours import Ours
from tests.comparison.peers import (
    Central,
    CentralWorstCase,
    CheckThenAdd,
    FixedChunks,
    ProportionalShare,
    StaticSplit,
)
from tests.comparison.truth import Truth
from tests.comparison.workload import arrivals, mean_cost

POLICIES: dict[str, Callable[[Clock, int, int, int], Policy]] = {
    "ours": Ours,
    "static": StaticSplit,
    "chunks": FixedChunks,
    "share": ProportionalShare,
    "central": Central,
    "worst-case": CentralWorstCase,
    "check-then-add": CheckThenAdd,
}
NEARLY = 0.99
"""Messages are counted up to here, and over the whole run: the last hundredth and what is refused then is dear."""
LOST_SHARE = 10
"""One host in so many is lost for good, in the cells about lost hosts."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the axes.

    Attributes:
        calls: the allowance, in mean calls of the trace for each host. skew: Zipf exponent of calls over hosts.
        minutes: in how long the calls would use the allowance up. lossy: a host stops in good order at 45 % of the
            allowance, and one in ten is lost for good at 50 %.
    """

    policy: str
    hosts: int
    skew: float
    calls: int
    round_trip_ms: int
    minutes: int = 60
    lossy: bool = False
    seeds: int = 1

    @property
    def work(self) -> float:
        """About how long it takes, for ordering."""
        return self.hosts * self.calls * self.seeds * (6.0 if self.policy == "ours" else 1.0) + 50 * self.hosts


@dataclass(slots=True)
class Result:
    """What one run shows. Shares are of the allowance; ``None``: does not apply, or did not happen.

    Attributes:
        u1: truly used at the first false refusal, 1 if there was none. uf: truly used at the end.
        messages: requests that crossed the network, for 1,000 decisions, until all but the last
            hundredth was taken; messages_beyond: of the whole run, with everything that is refused in the end.
        reclaim_ms: until others could use what a host held that stopped in good order. limbo: what nobody may use
            although nobody used it, because its host is lost.
    """

    u1: float
    uf: float
    overspend: float
    messages: float
    messages_beyond: float
    false_refusals: float
    wait_ms_p50: float
    wait_ms_p99: float
    decisions: float
    cut: float
    reclaim_ms: float | None = None
    limbo: float | None = None


def run_cell(cell: Cell, seed: int = 1) -> dict[str, Any]:
    """Every seed of a cell, averaged; with the cell's own coordinates."""
    gc.disable()
    results = [run_once(cell, seed + number) for number in range(cell.seeds)]
    gc.enable()
    gc.collect()
    means: dict[str, float | None] = {}
    for name in asdict(results[0]):
        values = [value for result in results if (value := getattr(result, name)) is not None]
        means[name] = round(mean(values), 7) if values else None
    return {**asdict(cell), "seed": seed, **means}


@dataclass(slots=True)
class Accidents:
    """What befalls hosts in a lossy cell."""

    stopped_at_ms: int | None = None
    reclaimed_at_ms: int | None = None
    lost: list[int] = field(default_factory=list)
    slack: int = 0


def run_once(cell: Cell, seed: int) -> Result:
    """One run of one policy."""
    allowance = round(cell.hosts * cell.calls * mean_cost())
    clock = Clock()
    policy = POLICIES[cell.policy](clock, cell.hosts, allowance, cell.round_trip_ms)
    truth = Truth(allowance)
    callers = Callers(clock, policy, truth, set())
    accidents = Accidents()
    at_end: list[tuple[int, int]] = []

    def until() -> bool:
        if not at_end and truth.promised >= NEARLY * allowance:
            at_end.append((policy.messages, truth.decisions))
        if cell.lossy:
            befall(cell, seed, accidents, callers)
        return callers.ended()

    callers.begin(arrivals(cell.hosts, cell.skew, allowance, cell.minutes * 60_000, seed))
    clock.run(until)
    return summary(callers, accidents, at_end, cell)


def befall(cell: Cell, seed: int, accidents: Accidents, callers: Callers) -> None:
    """Stop a host at 45 % of the allowance, lose a tenth of them at 50 %."""
    truth, clock = callers.truth, callers.clock
    if accidents.stopped_at_ms is None and truth.promised >= 0.45 * truth.allowance:
        host = cell.hosts // 2
        accidents.stopped_at_ms = clock.now_ms
        callers.stopped.add(host)

        def reclaimed() -> None:
            accidents.reclaimed_at_ms = clock.now_ms

        callers.policy.stop(host, reclaimed)
    if not accidents.lost and truth.promised >= 0.5 * truth.allowance:
        others = [host for host in range(cell.hosts) if host not in callers.stopped]
        accidents.lost = random.Random(f"lost {seed}").sample(others, cell.hosts // LOST_SHARE)
        callers.gone.update(accidents.lost)
        accidents.slack = sum(
            max(0, call.input + call.held - call.cost) for call in truth.streaming.values() if call.host in callers.gone
        )
        for host in accidents.lost:
            callers.policy.kill(host)


def summary(callers: Callers, accidents: Accidents, at_end: list[tuple[int, int]], cell: Cell) -> Result:
    """The figures of a run that is over."""
    truth, policy = callers.truth, callers.policy
    waits = sorted(truth.waits_ms)
    messages, decisions = at_end[0] if at_end else (policy.messages, truth.decisions)
    reclaim = None
    if accidents.stopped_at_ms is not None and accidents.reclaimed_at_ms is not None:
        reclaim = accidents.reclaimed_at_ms - accidents.stopped_at_ms
    result = Result(
        u1=1.0 if truth.first_false is None else truth.first_false,
        uf=truth.billed / truth.allowance,
        overspend=max(0, truth.billed - truth.allowance) / truth.allowance,
        messages=1_000 * messages / decisions,
        messages_beyond=1_000 * policy.messages / truth.decisions,
        false_refusals=truth.false / truth.decisions,
        wait_ms_p50=waits[len(waits) // 2],
        wait_ms_p99=waits[len(waits) * 99 // 100],
        decisions=truth.decisions,
        cut=truth.cut,
        reclaim_ms=reclaim,
    )
    if accidents.lost and cell.policy != "check-then-add":
        held = sum(policy.stranded(host) for host in accidents.lost) + accidents.slack
        result.limbo = held / truth.allowance
    return result
