"""How large a world is and how often what strikes: drawn anew for every seed, so that each is a storm of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Rates:
    """One world's.

    Attributes:
        hosts, customers, users: how many; ``users`` is for each customer.
        storm_s: for how long faults strike, virtual seconds.
        asks, every_s: so many calls at a time on each host, so often.
        size: of limits, relative to what would be used up in one window.
        patience: share of calls that wait up to a deadline.
        latency_s: mean, one way.
        lost, unanswered, duplicated, at_once, delayed: of messages.
        every: mean seconds between faults of a kind, over the whole world; a kind that is missing never strikes.
        drift_ppm: how far apart monotonic clocks run at most.
    """

    hosts: int
    customers: int
    users: int
    storm_s: float
    asks: int
    every_s: float
    size: float
    patience: float
    latency_s: float = 0.01
    lost: float = 0.0
    unanswered: float = 0.0
    duplicated: float = 0.0
    at_once: float = 0.0
    delayed: float = 0.0
    fsync_s: float = 0.002
    drift_ppm: int = 0
    every: dict[str, float] = field(default_factory=dict)


STRIKES = (
    "kill an agent", "kill an agent at its disk", "fsync fails", "disk full", "disk slow", "kill a replica",
    "kill a replica at a statement", "control plane down", "database away", "partition", "pause", "wall clock step",
    "machine reboot", "plan change", "status change", "revoke an agent", "stop an agent", "new disk", "new machine",
    "disk rolled back", "disk cloned",
)  # fmt: skip

PUT_BACK = "database put back"
"""Strikes only where it is asked for: it is the one fault that may forget what was answered."""


def draw(seed: int, *, hosts: int | None = None, storm_s: float | None = None, crowded: bool = False) -> Rates:
    """The storm of this seed. Every kind of fault is absent in some seeds, rare in some, and frequent in some."""
    dice = random.Random(f"rates-{seed}")

    def rate(most: float) -> float:
        return 0.0 if dice.random() < 0.35 else most * dice.random() ** 2

    rates = Rates(
        hosts=hosts or dice.randint(2, 6),
        customers=dice.randint(1, 4),
        users=dice.randint(1, 5),
        storm_s=storm_s or dice.choice([60.0, 120.0] if crowded else [45.0, 90.0, 150.0]),
        asks=dice.randint(300, 1_000) if crowded else dice.randint(1, 12),
        every_s=dice.uniform(0.05, 0.3),
        size=dice.choice([0.003, 0.006, 0.012] if crowded else [0.02, 0.05, 0.1, 0.3, 1.0]),
        patience=dice.choice([0.0, 0.02, 0.1, 0.5]) * (0.005 if crowded else 1.0),
        latency_s=dice.choice([0.002, 0.01, 0.05, 0.2]),
        lost=rate(0.2),
        unanswered=rate(0.2),
        duplicated=rate(0.2),
        at_once=rate(0.1),
        delayed=rate(0.1),
        fsync_s=dice.choice([0.0005, 0.003, 0.02]),
        drift_ppm=dice.choice([0, 1_000, 5_000, 5_000]),
    )
    for kind in STRIKES:
        if dice.random() < 0.55:
            rates.every[kind] = dice.uniform(0.05, 0.5) * rates.storm_s
    return rates


BUSY = ("kill an agent at its disk", "disk slow", "kill an agent")
"""Hosts with many calls are killed again and again while a commit is under way."""

SUITE: tuple[tuple[str, ...], ...] = (
    ("kill an agent at its disk", "disk slow", "fsync fails", "kill an agent"),
    ("kill a replica at a statement", "kill an agent"),
    ("kill a replica", "control plane down", "database away"),
    ("partition", "pause", "wall clock step", "machine reboot", "kill an agent"),
    ("plan change", "status change", "stop an agent", "revoke an agent", "kill an agent"),
    ("new disk", "new machine", "kill an agent", "disk full"),
    ("disk rolled back", "disk cloned", "kill an agent"),
    (PUT_BACK, "kill an agent"),
    BUSY,
)
"""What strikes together in the small worlds of the gate."""

SEEDS = (1_000, 1_001, 1_002, 1_003, 1_004, 1_005, 1_006, 1_007, 55)
"""By which dice they are thrown. A change of the protocol may need others: so that in the last one a host still dies
just when what was freed too early has been used."""


def suite(number: int) -> Rates:
    """A small world for the gate: together the worlds of the suite see every kind of fault, often."""
    rates = draw(1_000 + number, hosts=3, storm_s=30.0)
    rates.customers, rates.users, rates.asks, rates.every_s = 2, 2, 4, 0.15
    rates.lost = rates.unanswered = 0.1
    rates.duplicated = 0.15
    rates.at_once, rates.delayed, rates.latency_s = 0.08, 0.06, 0.01
    rates.patience, rates.size = 0.1, 0.04
    kinds = SUITE[number % len(SUITE)]
    rates.every = dict.fromkeys(kinds, rates.storm_s / 6)
    if "kill a replica at a statement" in kinds:
        rates.every["kill a replica at a statement"] = 2.0
    if PUT_BACK in kinds:  # what was lent before must be shown again, and then there is another round
        rates.storm_s = 120.0
        rates.every[PUT_BACK] = 10.0
    if "kill an agent" in kinds:
        rates.every["kill an agent"] = rates.storm_s / 2
    if kinds is BUSY:
        rates.storm_s, rates.asks = 60.0, 30
        rates.every |= {"kill an agent at its disk": 1.0, "disk slow": 2.0, "kill an agent": 3.0}
    return rates
