"""Small storms for the gate: no rule may break in any of them, and every kind of fault must have struck with effect."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.rates import SUITE
from tests.simulation.run import Outcome, one_of_the_suite

STRUCK = {
    "request dropped | sync that asks",
    "request dropped | sync with events",
    "response dropped | sync that granted",
    "response dropped | sync that accepted events",
    "response dropped | sync that closed leases",
    "duplicate at once | sync that granted",
    "duplicate | sync that accepted events",
    "very late duplicate | sync that granted",
    "agent killed | leases in use",
    "agent killed | calls in flight without a row",
    "agent killed | calls in flight with a row",
    "agent killed | events not yet confirmed",
}
"""Faults, and what they must have hit, in some world of the suite."""


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
    struck: Counter[str] = Counter()
    for storm in storms.values():
        struck.update(storm.result(timeout=600).faults)
    assert {fault for fault in STRUCK if struck[fault]} == STRUCK
