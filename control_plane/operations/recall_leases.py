"""Asks for the unused rest of leases when somebody is short: one round an allowance, and not too often."""

from __future__ import annotations

from control_plane.core import allocation, lease_life
from control_plane.core.lease_life import Status
from control_plane.operations.keep_books import Account, Books, life_of
from control_plane.store import changes, leases
from control_plane.store.changes import Change

DEBOUNCE_MS = 500
_WITHIN_REACH = frozenset({Status.OPEN.value, Status.RECALLED.value})


def recall_leases(books: Books, account: Account, agent: str, need: int, available: int) -> None:
    """Start a recall round for what ``agent`` lacks, unless there was one just now.

    The largest free rests are asked for first, down to one level; silent holders are left alone.
    """
    if books.now_ms - account.recalled_at_ms < DEBOUNCE_MS:
        return
    account.note_shortage(books.now_ms)
    alive = leases.alive_in_allowance(books.connection, account.key)
    held = {row.lease: row for row in alive if row.agent != agent and row.status in _WITHIN_REACH}
    free = {name: life_of(row).rest for name, row in held.items() if life_of(row).rest > 0}
    holders = len({held[name].agent for name in free})
    wanted = allocation.wanted_back(need, available, sum(free.values()), holders)
    for name, keep in allocation.keep_shares(free, wanted).items():
        row = held[name]
        life = lease_life.recall(life_of(row), keep)
        books.change(row._replace(status=life.status.value, keep=life.keep))
        books.announce(Change(row.customer, changes.RECALL, row.agent))
