"""The lender of the comparison keeps its books in memory; on any story it answers what the control plane answers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncReply
from tests.comparison.lender import Lender

STEPS = 120


class Holder:
    """What one agent holds, and reports of it."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.leases: dict[str, LeaseReport] = {}

    def live(self, dice: random.Random) -> None:
        """Some of what is held is used, held by calls, or given up."""
        for name, report in self.leases.items():
            settled = dice.randint(report.settled, report.cap)
            in_flight = dice.randint(0, report.cap - settled)
            closed = dice.random() < 0.1
            self.leases[name] = LeaseReport(name, report.cap, settled, 0 if closed else in_flight, 0, closed)

    def adopt(self, reply: SyncReply) -> None:
        """Take grants, give back what is asked for, forget what is closed."""
        for grant in reply.grants:
            self.leases[grant.lease] = LeaseReport(grant.lease, grant.amount, 0)
        for recall in reply.recalls:
            report = self.leases[recall.lease]
            cap = min(report.cap, report.settled + report.in_flight + recall.keep)
            self.leases[recall.lease] = LeaseReport(report.lease, cap, report.settled, report.in_flight)
        for name in reply.closed:
            self.leases.pop(name, None)


def told(reply: SyncReply) -> dict[str, object]:
    return {
        "grants": [(grant.lease, grant.amount, grant.central) for grant in reply.grants],
        "denials": [(denial.lease, denial.exhausted, denial.retry_in_ms) for denial in reply.denials],
        "recalls": {recall.lease: recall.keep for recall in reply.recalls},
        "closed": set(reply.closed),
    }


@pytest.mark.parametrize("seed", range(4))
def test_both_give_the_same_answers(world: Any, seed: int) -> None:
    dice = random.Random(seed)
    limit = world.limit(amount=400, window="month")
    world.customer("acme", limit)
    lender = Lender(400, lambda *_, **__: None)
    holders = [Holder(agent) for agent in world.agents(5)]
    answers: set[str] = set()
    for step in range(STEPS):
        world.clock.advance(dice.choice((20, 100, 300, 600)))
        holder = dice.choice(holders)
        holder.live(dice)
        ask = Ask(
            f"lease-{step}", limit.counter, "", dice.randint(0, 12), dice.choice((0, 3, 40, 400)), dice.randint(2, 8)
        )
        asks = (ask,) if dice.random() < 0.8 else ()
        request = holder.agent.request((CustomerSync("acme", 1, asks=asks),), holder.leases.values())
        reply = holder.agent.send(request)
        expected = told(reply)
        assert told(lender.answer(holder.agent.name, request, world.clock.now_ms())) == expected, step
        answers |= {name for name, said in expected.items() if said}
        holder.adopt(reply)
    assert answers == {"grants", "denials", "recalls", "closed"}
