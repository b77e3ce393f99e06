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


@pytest.fixture(scope="module")
def storms() -> Iterator[dict[int, Future[Outcome]]]:
    """All worlds of the suite, on every core."""
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        yield {number: pool.submit(one_of_the_suite, number) for number in range(len(SUITE))}


@pytest.mark.parametrize("number", range(len(SUITE)))
def test_no_rule_breaks_whatever_strikes(storms: dict[int, Future[Outcome]], number: int) -> None:
    outcome = storms[number].result(timeout=600)
    assert not outcome.breaches, f"{outcome.breaches}\n" + "".join(outcome.tail)
    assert sum(outcome.decisions.values()) > 1_000
    assert outcome.decisions["ok"] > 100


def test_every_fault_struck_with_effect(storms: dict[int, Future[Outcome]]) -> None:
    struck: dict[str, set[str]] = defaultdict(set)
    for storm in storms.values():
        for pair in storm.result(timeout=600).faults:
            fault, _, hit = pair.partition(" | ")
            struck[fault].add(hit)
    assert not STRUCK.keys() - struck.keys()
    assert not {fault: hit - struck[fault] for fault, hit in STRUCK.items() if hit - struck[fault]}
