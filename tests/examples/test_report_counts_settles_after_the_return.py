"""The report counts reservations that outlived the agent that had allowed them, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.quickstart import report
from examples.quickstart.audit import Audit
from examples.quickstart.callers import Told
from examples.quickstart.settings import Settings
from examples.quickstart.workload import Call

OUTAGE = {"agent": 1, "killed_at": 10.0, "back_at": 11.0, "away_s": 1.0}
SETTINGS = Settings(Path(), 80, 4, 2, "", "", 7, True)


def told(
    agent: int = 1, asked_at: float = 9.0, decided_s: float = 0.1, ended_at: float = 11.5, settled: bool = True
) -> Told:
    amounts = {"requests": 1} if settled else None
    call = Call(0, 0.0, 1, 1, "customer-001", "user-1", agent)
    return Told(call, "call-0", asked_at, ended_at, verdict="allow", decided_s=decided_s, settled=amounts)


@pytest.mark.parametrize(
    ("one", "counted"),
    [
        (told(), 1),
        (told(agent=0), 0),
        (told(asked_at=10.5), 0),
        (told(decided_s=2.0), 0),
        (told(ended_at=9.5), 0),
        (told(settled=False), 0),
    ],
    ids=["outlived", "other agent", "asked while away", "decided after the return", "settled before", "never settled"],
)
def test_only_settles_of_reservations_from_before_count(one: Told, counted: int) -> None:
    summary = report.summary(SETTINGS, [one], Audit(), dict(OUTAGE), 12.0)
    assert summary["kill"]["settled_after_return"] == counted
