"""Many agents on one hot allowance, at the same moment: nothing is lent twice, nobody gets a deadlock for an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select

from control_plane.store import tables
from control_plane.store.database import Database
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync


def lent(world: Any) -> int:
    table = tables.leases
    query = select(table.c.granted)
    return world.read(lambda connection: sum(row.granted for row in connection.execute(query)))


def test_two_processes_never_overspend_a_hot_allowance(world: Any) -> None:
    day, hour = world.limit(amount=60), world.limit("input_tokens", 300, "hour")
    names = [world.customer(name, day, hour) for name in ("acme", "bolt")]
    agents = world.agents(8)
    other = Database(str(world.database.url.render_as_string(hide_password=False)))

    def life(number: int) -> int:
        """Ask for both customers' limits in an order of one's own, use what comes, give back the rest."""
        agent = agents[number]
        agent.world = type(world)(other if number % 2 and not world.database.is_sqlite else world.database, world.clock)
        used = 0
        for turn in range(5):
            order = names if (number + turn) % 2 else names[::-1]
            asked = [
                CustomerSync(
                    name,
                    0,
                    asks=tuple(
                        Ask(f"l-{number}-{turn}-{name}-{limit.meter}", limit.counter, "", 3, 600, 3)
                        for limit in ((day, hour) if turn % 2 else (hour, day))
                    ),
                )
                for name in order
            ]
            reply = agent.sync(*asked)
            event = [world.event(grant.customer, {grant.counter.split("/")[1]: 2}, [grant]) for grant in reply.grants]
            used += 2 * len(event)
            agent.seq += len(event)
            batches = [world.batch(1, agent.seq - len(event) + 1, event)] if event else []
            reports = [LeaseReport(grant.lease, grant.amount, settled=2, closed=True) for grant in reply.grants]
            agent.sync(leases=reports, batches=batches)
        return used

    with ThreadPoolExecutor(8) as threads:
        used = sum(threads.map(life, range(8)))
    other.dispose()
    assert world.books() == []
    posted = select(tables.allowances.c.counter, tables.allowances.c.posted, tables.allowances.c.outstanding)
    rows = world.read(lambda connection: list(connection.execute(posted)))
    assert sum(row.posted for row in rows) == used
    assert all(row.posted <= (60 if "requests" in row.counter else 300) for row in rows)
    assert not any(row.outstanding for row in rows)


def test_a_burst_of_first_calls_shares_one_allowance(world: Any) -> None:
    day = world.limit(amount=1_000)
    world.customer("acme", day)
    agents = world.agents(200)

    def first_call(agent: Any) -> tuple[int, int]:
        reply = agent.first_call("acme", {"requests": 1})
        return len(reply.grants), len(reply.denials)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(first_call, agents))
    assert answers == [(1, 0)] * 200  # with 1,000 for 200 hosts, everybody gets a call
    assert 200 <= lent(world) <= 1_000
    assert world.books() == []
    assert all(agent.first_call("acme", {"requests": 1}).grants for agent in agents[:20])
