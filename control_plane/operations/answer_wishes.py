"""The answers to wishes: a grant of a lease that was written down, or a denial that says when to ask again."""

from __future__ import annotations

import msgspec

from control_plane.core.kinds import counted
from control_plane.core.lease_life import Status
from control_plane.core.seals import seal_of
from control_plane.operations.exchange import LEASE_TTL_MS, Exchange
from control_plane.operations.find_wishes import Wish
from control_plane.store import leases
from protocol.leases import Denial, Grant


def new_lease(exchange: Exchange, wish: Wish, amount: int) -> leases.Row:
    """The lease that was wished for, of so much."""
    return leases.Row(
        customer=wish.key.customer,
        lease=wish.lease,
        counter=wish.key.counter,
        scope_value=wish.key.scope_value,
        window_start_ms=wish.key.window_start_ms,
        agent=exchange.agent,
        journal=exchange.request.journal,
        boot=exchange.request.boot,
        granted=amount,
        cap=amount,
        settled=0,
        in_flight=0,
        unreported=0,
        overage=0,
        central=False,
        status=Status.OPEN.value,
        keep=0,
        ttl_ms=LEASE_TTL_MS,
        granted_at_ms=exchange.now_ms,
        renewed_at_ms=exchange.now_ms,
        closed_at_ms=None,
    )


def grant(exchange: Exchange, wish: Wish, row: leases.Row) -> None:
    """Say that it is lent."""
    account = exchange.books.accounts[row.key]
    said = Grant(
        lease=row.lease,
        customer=row.customer,
        counter=row.counter,
        scope_value=row.scope_value,
        amount=row.cap,
        ttl_ms=LEASE_TTL_MS,
        window_start_ms=row.window_start_ms,
        window_end_ms=account.window_end_ms,
        window_left_ms=max(0, account.window_end_ms - exchange.now_ms),
        standing=exchange.standing(account, wish.limit),
        central=row.central,
        overage=row.overage,
        starts_in_ms=max(0, row.window_start_ms - exchange.now_ms),
        finishing=row.finishing,
        per_ms=counted(row.counter).period_ms,
        burst=row.burst,
        level=row.level,
    )
    seal = seal_of(exchange.trust.key, exchange.agent, row.journal, said)
    exchange.answer.grants.append(msgspec.structs.replace(said, seal=seal))


def deny(exchange: Exchange, wish: Wish, *, exhausted: bool, retry_in_ms: int) -> None:
    """Say that it is not, and when to ask again."""
    left_ms = wish.window.end_ms - exchange.now_ms
    exchange.answer.denials.append(
        Denial(
            lease=wish.lease,
            customer=wish.key.customer,
            counter=wish.key.counter,
            scope_value=wish.key.scope_value,
            exhausted=exhausted,
            version=exchange.entitlements[wish.key.customer].version,
            retry_in_ms=min(retry_in_ms, left_ms),
            window_start_ms=wish.window.start_ms,
            window_end_ms=wish.window.end_ms,
            window_left_ms=left_ms,
            standing=exchange.standing(exchange.books.accounts[wish.key], wish.limit),
        )
    )
