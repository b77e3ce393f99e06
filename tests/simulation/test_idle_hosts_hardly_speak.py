"""A host without calls keeps in touch by its hanging watch and little else."""

from __future__ import annotations

from tests.simulation.rates import Rates
from tests.simulation.world import simulate


def messages(minutes: int) -> int:
    """Of one agent, from its start on; nobody calls."""
    quiet = Rates(hosts=1, customers=1, users=1, storm_s=60.0 * minutes, asks=0, every_s=600.0, size=1.0, patience=0.0)
    report = simulate(5, quiet)
    assert not report.chronicle.breaches
    numbers = report.chronicle.numbers
    assert not report.chronicle.decisions
    return numbers["syncs served"] + numbers["watchs served"]


def test_an_idle_host_sends_at_most_six_messages_in_five_minutes() -> None:
    assert 0 < messages(40) - messages(10) <= 1.2 * 30
