"""Rules of the product broken on purpose: each of them is caught by a checker, in a small world of the suite.

`make simulate MUTATIONS=1` breaks all of them; here are those that are caught at once, one for each kind of rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Outcome, hunt

AT_ONCE = (
    "use before debit",
    "use before journal",
    "raise before commit",
    "freed before durable",
    "orphans forgotten",
    "return before durable",
    "grow in place",
    "last write wins",
    "forget before acknowledged",
    "a start closes all",
    "a subset is held",
)


@pytest.fixture(scope="module")
def hunts() -> Iterator[dict[str, Future[Outcome | None]]]:
    """All of them, on every core."""
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        yield {name: pool.submit(hunt, name) for name in AT_ONCE}


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_broken_rule_is_caught(hunts: dict[str, Future[Outcome | None]], name: str) -> None:
    outcome = hunts[name].result(timeout=600)
    assert outcome is not None, f"nothing noticed: {name}"
    assert outcome.breaches


def test_every_rule_of_the_design_notes_is_among_them() -> None:
    assert {f"R{number}" for number in range(1, 13)} <= {mutation.rule for mutation in MUTATIONS}
