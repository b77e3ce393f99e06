"""Small storms for the gate: no rule may break in any of them, and every kind of fault must have struck with effect."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.rates import SUITE
from tests.simulation.run import Outcome, one_of_the_suite

STRUCK = {
    "agent killed": {
        "asks under way",
        "calls in flight with a row",
        "calls in flight without a row",
        "closed leases not yet acknowledged",
        "events not yet confirmed",
        "leases in use",
        "parked calls",
    },
    "agent killed after a statement": set(),
    "agent killed after the commit, before the answer": set(),
    "agent killed before a statement": set(),
    "agent killed before the commit": set(),
    "agent revoked": set(),
    "control plane down": {"sync", "watch"},
    "control plane killed after a statement": set(),
    "control plane killed after the commit, before the answer": set(),
    "control plane killed before a statement": set(),
    "control plane killed before the commit": set(),
    "database away": set(),
    "database put back": {"leases forgotten"},
    "disk cloned": {"leases in use"},
    "disk full": set(),
    "disk rolled back": {"leases in use"},
    "duplicate": {"sync that accepted events", "sync that closed leases", "sync that granted"},
    "duplicate at once": {"sync that accepted events", "sync that granted", "sync that introduced a start"},
    "fsync failed, but all was written": set(),
    "fsync failed, nothing written": set(),
    "graceful stop": {"leases held"},
    "late duplicate": set(),
    "machine rebooted": {"leases held"},
    "new disk": {"leases in use"},
    "new machine": {"leases in use"},
    "partition: requests lost": set(),
    "pause": {"leases in use"},
    "plan change": {"allowances in use"},
    "request delayed beyond patience": set(),
    "request dropped": {"sync that asks", "sync with events", "sync that closes leases", "watch"},
    "response dropped": {"sync that accepted events", "sync that granted", "sync that introduced a start"},
    "slow fsync": {"events wait"},
    "very late duplicate": set(),
}
"""Every fault must have struck something in some world of the suite; these must have hit what is named, too."""


ROUNDS_MAX = 4


class Storms:
    """Worlds of the suite, on every core; each is run once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self._running: dict[int, Future[Outcome]] = {}

    def begin(self, number: int) -> None:
        """Run it, if it does not run yet."""
        if number not in self._running:
            self._running[number] = self._pool.submit(one_of_the_suite, number)

    def of(self, number: int) -> Outcome:
        """What one came to."""
        self.begin(number)
        return self._running[number].result(timeout=600)


@pytest.fixture(scope="module")
def storms() -> Iterator[Storms]:
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        storms = Storms(pool)
        for number in range(len(SUITE)):
            storms.begin(number)
        yield storms


def breaks_nothing(outcome: Outcome) -> None:
    assert not outcome.breaches, f"seed {outcome.seed}: {outcome.breaches}\n" + "".join(outcome.tail)
    assert sum(outcome.decisions.values()) > 1_000


@pytest.mark.parametrize("number", range(len(SUITE)))
def test_no_rule_breaks_whatever_strikes(storms: Storms, number: int) -> None:
    breaks_nothing(storms.of(number))


def test_much_is_allowed_while_it_storms(storms: Storms) -> None:
    assert sum(storms.of(number).decisions["ok"] for number in range(len(SUITE))) > 3_000


def test_calls_are_allowed_all_the_same(storms: Storms) -> None:
    """Not in each world: where agents are revoked and plans emptied, one may allow next to nothing."""
    allowed = [storms.of(number).decisions.get("ok", 0) for number in range(len(SUITE))]
    assert sum(allowed) > 50 * len(SUITE), allowed
    assert sum(1 for count in allowed if count > 20) > len(SUITE) // 2, allowed


def test_every_fault_struck_with_effect(storms: Storms) -> None:
    """In the worlds above, or in as many more rounds of them as it takes."""
    struck: dict[str, set[str]] = defaultdict(set)
    for number in range(ROUNDS_MAX * len(SUITE)):
        outcome = storms.of(number)
        breaks_nothing(outcome)
        for pair in outcome.faults:
            fault, _, hit = pair.partition(" | ")
            struck[fault].add(hit)
        if number + 1 >= len(SUITE) and not unstruck(struck):
            return
    raise AssertionError(unstruck(struck))


def unstruck(struck: dict[str, set[str]]) -> dict[str, set[str]]:
    """Faults that have not struck, or not what they must."""
    return {fault: hit - struck[fault] for fault, hit in STRUCK.items() if fault not in struck or hit - struck[fault]}
