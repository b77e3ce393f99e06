"""What must have come right once the storm is over: nothing lost, nothing counted twice, nothing left hanging."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import trio

from control_plane.operations.audit_books import check_books
from control_plane.store.database import Database
from protocol.events import UsageEvent
from tests.simulation.books_view import LeaseRow
from tests.simulation.contracts import TOKENS

if TYPE_CHECKING:
    from tests.simulation.world import World

_event = msgspec.msgpack.Decoder(UsageEvent).decode


def not_yet_right(world: World) -> Iterator[tuple[str, str]]:
    """33: what is still open while agents run: nothing, two terms after the last fault and the last call at most."""
    for callers in world.callers:
        if callers.busy:
            yield "every call comes to its end", f"{callers.host.name}: {callers.state()}"
    alive = [host.agent.books.journal for host in world.hosts if host.agent is not None]
    journals = set(alive)
    for journal in sorted(journals):
        if alive.count(journal) > 1:
            yield "one life for one journal", f"{alive.count(journal)} agents run on copies of {journal}"
    for row in world.view.leases(world.time.now_ms()):
        if row.journal in journals and row.status in ("limbo", "expired") and not _is_of_the_backup(world, row):
            yield "limbo of returned agents ends", f"{row}; {_holder_says(world, row)}"
    for host in world.hosts:
        if host.agent is None:
            yield "agents return", f"{host.name} does not run"
        elif host.agent._outbox.events or host.agent.books.pending.events:
            yield "events arrive", f"{host.name} still has {host.agent._outbox.events} events"
        elif host.agent.books.parked or host.agent.books.asking:
            yield "no parked call is forgotten", f"{host.name} still has parked calls or asks"


def after_the_storm(world: World) -> None:
    """When every agent has been told to stop and has given everything back."""
    for host in world.hosts:
        if host.agent is not None:
            _breach(world, "a graceful stop ends", f"{host.name} still runs")
    _leases_are_back(world)
    _books_are_right(world)
    _events_are_there_once(world)
    _charges_cover_the_truth(world)


def no_task_is_left(world: World) -> None:
    """Every nursery has closed; nothing else may run beside the main task and Trio's own."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
    if len(tasks) > 2:
        world.chronicle.breach("no task is left", f"{tasks}")


def _leases_are_back(world: World) -> None:
    """43: whoever stops in good order gives everything back."""
    last = {host.last_journal for host in world.hosts}
    for row in world.view.leases(world.time.now_ms()):
        returned = row.status == "closed" or row.in_flight  # a call in flight keeps its hold for the next start
        if row.journal in last and not returned and not _is_of_the_backup(world, row):
            _breach(world, "a graceful stop gives everything back", f"{row}; {_holder_says(world, row)}")


def _is_of_the_backup(world: World, row: LeaseRow) -> bool:
    """Open in the backup, closed since then, and remembered by nobody: charged until its window ends, as is written."""
    known = any(host.agent is not None and row.lease in host.agent.books.leases for host in world.hosts)
    return world.put_back and not known


def _holder_says(world: World, row: LeaseRow) -> str:
    """What the holder knows of a lease, for people."""
    for host in world.hosts:
        if host.agent is not None and host.agent.books.journal == row.journal:
            lease = host.agent.books.leases.get(row.lease)
            known = lease and {name: getattr(lease, name) for name in lease.__slots__ if hasattr(lease, name)}
            return f"{host.name}, boot {host.agent.books.boot}, {host.agent._syncer.state}: {known}"
    return "its holder does not run"


def _books_are_right(world: World) -> None:
    """4: every sum is the sum of what it was made of."""
    database = Database(world.database_url)
    for difference in database.read(check_books):
        if any(journal in difference for journal in world.provider.tainted):
            world.chronicle.numbers["differences on disks that lived twice"] += 1
        else:
            _breach(world, "the books are right", difference)
    database.dispose()


def _events_are_there_once(world: World) -> None:
    """31, 32: what callers were told is in the ledger exactly once, in the words that count last - or was kept aside as
    a contradiction. What lay on a disk that was lost may be missing."""
    ledger: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for customer, name, body in world.view.events():
        event = _event(body)
        if event.event != name:
            _breach(world, "events are there once", f"{name} is stored as {event.event}")
        root = (customer, event.corrects or name)
        ledger[root].update(event.amounts)
    aside = {(customer, name.partition("~")[0]) for customer, name, _, _ in world.view.conflicts()}
    for told, amounts in world.checkers.said.items():
        if told in world.lost:
            world.chronicle.numbers["events lost with their disk"] += told not in ledger
            continue
        if told not in ledger:
            if told not in aside:
                _breach(world, "events are there once", f"{told} was acknowledged, and is nowhere")
        elif told not in aside and ledger[told][TOKENS] != amounts[TOKENS]:
            text = f"{told}: {ledger[told][TOKENS]} in the ledger, {amounts[TOKENS]} acknowledged"
            _breach(world, "events are there once", text)


def _charges_cover_the_truth(world: World) -> None:
    """33: what is posted, debited and still lent covers what was truly used."""
    charged: Counter[tuple[str, str]] = Counter()
    for row in world.view.allowances():
        used = world.provider.used.get(row.key, 0)
        taken = row.posted + row.outstanding + row.direct
        charged[row.key[0], row.key[1]] += taken
        if used > row.posted + row.outstanding + max(0, row.direct) + world.provider.forgiven.get(row.key, 0):
            _breach(world, "charged covers used", f"{row.key}: {used} used, {taken} charged")


def _breach(world: World, checker: str, text: str) -> None:
    world.chronicle.breach(checker, text)
