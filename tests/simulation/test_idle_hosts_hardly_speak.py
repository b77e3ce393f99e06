"""A host without calls keeps in touch by its hanging watch and little else."""

from __future__ import annotations

import io
import re
import sys

import pytest

from tests.simulation.rates import Rates
from tests.simulation.world import simulate

MINUTE_MS = 60_000
SAID = re.compile(r" *(\d+) host-0 (?:sync|watch) ")
LOOKS = {"follow_changes": "POLL_S", "keep_entitlements": "EVERY_S", "make_meters": "EVERY_S"}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that looks at its own database now and then only: these looks are no messages."""
    for name, every in LOOKS.items():
        monkeypatch.setattr(sys.modules[f"control_plane.background.{name}"], every, 5.0)


def messages(minutes: int) -> list[int]:
    """When the one agent of a world spoke, ms from its begin; nobody calls."""
    storm_s = minutes * 60.0
    quiet = Rates(hosts=1, customers=1, users=1, storm_s=storm_s, asks=0, every_s=600.0, size=1.0, patience=0.0)
    trace = io.StringIO()
    report = simulate(5, quiet, trace)
    assert not report.chronicle.breaches
    assert not report.chronicle.decisions
    found = [int(said[1]) for line in trace.getvalue().splitlines() if (said := SAID.match(line))]
    numbers = report.chronicle.numbers
    assert len(found) == numbers["syncs served"] + numbers["watchs served"]
    return found


def test_an_idle_host_sends_at_most_six_messages_in_five_minutes(unhurried: None) -> None:
    said = messages(11)
    assert 0 < sum(5 * MINUTE_MS <= at_ms < 10 * MINUTE_MS for at_ms in said) <= 6
