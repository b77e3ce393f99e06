"""Which cells are compared: all of the axes where that is affordable, and a stated part of them where it is not."""

from __future__ import annotations

from itertools import product

from tests.comparison.measure import POLICIES, Cell

HOSTS = (1, 10, 100, 1_000)
SKEWS = (0.0, 0.8, 1.1, 1.5)
CALLS = (1, 5, 200, 10_000)
ROUND_TRIPS_MS = (5, 50, 200)

SMALL = 2_000
MIDDLING = 20_000
LARGE = 100_000
"""Calls of an allowance: up to these, cells are run with five seeds, with two, and with every other axis in full."""

SUBSET = """\
All hosts, skews, allowances and round trips, but: 1,000 hosts x 200 calls with every skew at 50 ms, and with the other
round trips at skew 1.1 alone; 100 hosts x 10,000 calls at skew 1.1 and 50 ms; 1,000 hosts x 10,000 calls (ten million
calls a cell) not at all - 1,000 hosts x 1,000 calls stand in for them. One host has no skew. The allowance lasts an
hour; the cells called busy use it up in ten minutes."""


def everything() -> list[Cell]:
    """The cells of `make compare`."""
    places = [place for place in product(HOSTS, SKEWS, CALLS, ROUND_TRIPS_MS) if _is_run(*place)]
    plain = [
        Cell(policy, hosts, skew, calls, round_trip_ms, seeds=_seeds(hosts * calls))
        for hosts, skew, calls, round_trip_ms in places
        for policy in POLICIES
    ]
    return plain + _busy() + _lossy()


def _is_run(hosts: int, skew: float, calls: int, round_trip_ms: int) -> bool:
    if hosts == 1 and skew:
        return False
    if hosts * calls <= LARGE:
        return True
    if (hosts, calls) == (1_000, 200):
        return round_trip_ms == 50 or skew == 1.1
    return (hosts, calls) == (100, 10_000) and (skew, round_trip_ms) == (1.1, 50)


def _seeds(calls: int) -> int:
    return 5 if calls <= SMALL else 2 if calls <= MIDDLING else 1


def _busy() -> list[Cell]:
    """Where the same allowance is used six times as fast."""
    places = [(100, 200), (100, 1_000), (1_000, 200), (1_000, 1_000)]
    return [Cell(policy, hosts, 1.1, calls, 50, minutes=10) for hosts, calls in places for policy in POLICIES]


def _lossy() -> list[Cell]:
    """Where a host stops in good order, and one in ten is lost for good."""
    places = [(100, 1.1, 200), (100, 0.0, 200), (1_000, 0.0, 200), (1_000, 1.1, 200), (1_000, 1.5, 200)]
    return [Cell(policy, hosts, skew, calls, 50, lossy=True) for hosts, skew, calls in places for policy in POLICIES]


def glance() -> list[Cell]:
    """The cells of `make compare ARGS=--quick`."""
    places = [(1, 0.0, 200), (10, 1.1, 5), (10, 1.1, 200), (100, 0.0, 5), (100, 1.1, 200), (1_000, 1.1, 5)]
    cells = [Cell(policy, *place, 50) for place in places for policy in POLICIES]
    cells += [Cell(policy, 100, 1.1, 200, 50, minutes=10) for policy in POLICIES]
    return cells + [Cell(policy, 100, 1.1, 200, 50, lossy=True) for policy in POLICIES]
