"""On small fleets the comparison shows what its page says of every policy, and the same each time."""

from __future__ import annotations

import pytest

from tests.comparison.measure import POLICIES, Cell, run_cell

FLEET = {"hosts": 10, "skew": 1.1, "calls": 50, "round_trip_ms": 50}


@pytest.fixture(scope="module")
def shown() -> dict[str, dict[str, float]]:
    return {policy: run_cell(Cell(policy, **FLEET)) for policy in POLICIES}


def test_nobody_but_check_then_add_passes_the_limit(shown):
    assert shown["check-then-add"]["overspend"] > 0
    assert {policy for policy, row in shown.items() if row["overspend"] > 0} == {"check-then-add"}


def test_leases_leave_little_more_than_a_central_check_and_a_static_split_leaves_most(shown):
    assert shown["ours"]["u1"] > 0.99
    assert shown["ours"]["u1"] > shown["central"]["u1"] - 0.01
    assert shown["static"]["u1"] < 0.5


def test_leases_need_fewer_messages_than_a_central_check(shown):
    assert shown["ours"]["messages"] < shown["central"]["messages"]
    assert shown["static"]["messages"] == 0


def test_the_same_seed_gives_the_same_figures(shown):
    assert run_cell(Cell("ours", **FLEET)) == shown["ours"]


def test_hosts_that_stop_give_everything_back_and_hosts_that_are_lost_strand_little():
    row = run_cell(Cell("ours", **{**FLEET, "hosts": 20}, lossy=True))
    assert row["reclaim_ms"] is not None
    assert row["reclaim_ms"] < 1_000
    assert row["overspend"] == 0
    assert row["limbo"] < 0.05
