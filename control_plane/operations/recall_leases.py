"""Asks for the unused rest of leases when somebody is short: one round an allowance, and not too often."""

from __future__ import annotations

from control_plane.core import allocation, lease_life, recalls
from control_plane.core.kinds import Kind, kind_of
from control_plane.core.lease_life import Status
from control_plane.core.recalls import Rest
from control_plane.operations.accounts import Account
from control_plane.operations.keep_books import Books, life_of
from control_plane.store import changes, leases
from control_plane.store.changes import Change
from control_plane.store.demands import Place

DEBOUNCE_MS = 500
LATELY_MS = 60_000
ANSWERED_MS = 2_000
"""In what time holders that are there have answered."""
_WITHIN_REACH = frozenset({Status.OPEN.value, Status.RECALLED.value})


def recall_leases(books: Books, account: Account, agent: str, need: int, available: int) -> bool:
    """Start a recall round for what ``agent`` lacks, unless there was one just now.

    Idle holders are asked first, then all down to rests that last equally long. Silent ones are left alone, and so are
    those that were asked in the round before and have said nothing since: nobody there hears the watch.

    Returns:
        Whether it makes sense to wait: ``False`` if nobody has any rest that is worth its messages, and no answer is
        on its way.
    """
    before_ms = account.recalled_at_ms
    if books.now_ms - before_ms < DEBOUNCE_MS:
        return True
    account.note_shortage(books.now_ms)
    books.unit.write_leases()
    alive = leases.alive_in_allowance(books.connection, account.key)
    held = {row.lease: row for row in alive if row.agent != agent and _hears(row, before_ms)}
    rests = {
        name: rest
        for name, rest in _rests(books, account, held).items()
        if allocation.worth_asking_back(rest.amount, need)
    }
    wanted = allocation.wanted_back(need, available, sum(rest.amount for rest in rests.values()))
    for name, keep in recalls.keep_after_recall(rests, wanted).items():
        row = held[name]
        # Of slots, what calls hold comes back too, when they end.
        held_back = row.in_flight if kind_of(row.counter) is Kind.SLOTS else 0
        life = lease_life.recall(life_of(row), max(0, keep - held_back))
        books.change(row._replace(status=life.status.value, keep=life.keep))
        books.announce(Change(row.customer, changes.RECALL, row.agent))
    on_their_way = books.now_ms - before_ms < ANSWERED_MS and any(row.status == Status.RECALLED for row in alive)
    return bool(rests) or on_their_way


def _hears(row: leases.Row, last_round_ms: int) -> bool:
    if row.status not in _WITHIN_REACH:
        return False
    return row.status == Status.OPEN or row.renewed_at_ms >= last_round_ms


def _rests(books: Books, account: Account, held: dict[str, leases.Row]) -> dict[str, Rest]:
    """What could come back, by lease; the demand of a holder is spread over what it holds."""
    place = Place(*account.key[:3])
    lately = books.unit.lately([place], books.now_ms - LATELY_MS).get(place, ())
    demand = {one.agent: one.demand_per_min for one in lately}
    free: dict[str, int] = {}
    for name, row in held.items():
        life = life_of(row)
        rest = life.cap - life.unreported if kind_of(row.counter) is Kind.SLOTS else life.rest
        if rest > 0:
            free[name] = rest
    together: dict[str, int] = {}
    for name, rest in free.items():
        together[held[name].agent] = together.get(held[name].agent, 0) + rest
    return {
        name: Rest(rest, -(-demand.get(held[name].agent, 0) * rest // together[held[name].agent]))
        for name, rest in free.items()
    }
