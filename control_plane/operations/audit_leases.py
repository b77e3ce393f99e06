"""Recomputes, lease by lease, what was charged from what events say; and looks for what is lent beyond its limit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from control_plane.core.kinds import Kind, kind_of
from control_plane.core.lease_life import Status
from control_plane.operations.resolve_entitlement import decode_document
from control_plane.store import allowances, entitlements, events, leases, ledger
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from control_plane.store.spans import Span
from protocol.entitlements import Limit
from protocol.events import Charge
from protocol.leases import burst_left

EXPLAINED = frozenset({"window_end", "write_off", "late", "restored"})
"""Entries of these causes say themselves why a lease is charged otherwise than its events say."""


class _Charges(msgspec.Struct):
    """The part of an event that leases pay."""

    charges: tuple[Charge, ...] = ()


_decode = msgspec.msgpack.Decoder(_Charges).decode


@dataclass(slots=True)
class _Paid:
    """What one lease paid, as the ledger has it."""

    posted: int = 0
    given_back: int = 0
    causes: set[str] = field(default_factory=set)


def lease_differences(connection: Connection, span: Span, *, told_all: bool) -> Iterator[str]:
    """For each closed lease of a quota: posted = what its events charged + what may have been used without an event
    (``unreported``) + what repeated events charged again (given back ``direct``); unless an entry says why not.

    Args:
        told_all: every agent has sent all its events, and none was lost. Otherwise a lease may be charged for use that
            its holder has reported and not yet proven by events, but not for more, and never for less than they say.
    """
    charged = _charged(connection, span)
    paid = _paid(connection, span)
    for row in leases.all_rows(connection, span):
        if row.status != Status.CLOSED or kind_of(row.counter) is not Kind.QUOTA:
            continue
        ours = paid.get((row.customer, row.lease), _Paid())
        said = charged.get((row.customer, row.lease), 0)
        proven = min(row.granted, said + ours.given_back + row.unreported)
        most = proven if told_all else max(proven, row.settled + row.unreported)
        if not proven <= ours.posted <= most and not ours.causes & EXPLAINED:
            where = f"{row.customer}/{row.lease}"
            yield f"{where}: posted {ours.posted}, but events, repetitions and unreported use make {proven}"


def _charged(connection: Connection, span: Span) -> dict[tuple[str, str], int]:
    """What events charged to leases, those that were kept without being accepted included."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for customer, body in chain(events.bodies(connection, span), events.kept_bodies(connection, span)):
        try:
            said = _decode(body)
        except msgspec.MsgspecError:
            continue
        for charge in said.charges:
            found[customer, charge.lease] += charge.amount
    return found


def _paid(connection: Connection, span: Span) -> dict[tuple[str, str], _Paid]:
    found: dict[tuple[str, str], _Paid] = defaultdict(_Paid)
    for sum_ in ledger.lease_sums(connection, span):
        ours = found[sum_.customer, sum_.lease]
        ours.causes.add(sum_.cause)
        if sum_.kind == ledger.POST:
            ours.posted += sum_.amount
        elif sum_.kind == ledger.DIRECT:
            ours.given_back -= sum_.amount
    return found


def limit_differences(connection: Connection, span: Span) -> Iterator[str]:
    """Shares that sum to more than their rate, bursts or slots beyond the limit, and charges where nothing is charged.

    After a limit was lowered its holders have until they are heard of to give back what is above it; so it is looked at
    again from the first lease on that was granted under the new one. Leases that a restored database took in by their
    seals count whatever that does to the limit.
    """
    alive: dict[Key, list[leases.Row]] = defaultdict(list)
    for row in leases.all_rows(connection, span):
        if row.status != Status.CLOSED and kind_of(row.counter) is not Kind.QUOTA:
            alive[row.key].append(row)
    restored = ledger.keys_with_cause(connection, "restored", span)
    for account in allowances.all_rows(connection, span):
        if kind_of(account.key.counter) is not Kind.QUOTA:
            limit = _limit_since(connection, account.key, alive[account.key])
            unlimited = account.key in restored
            yield from _passes(account, alive[account.key], None if unlimited else limit)


def _limit_since(connection: Connection, key: Key, alive: list[leases.Row]) -> Limit | None:
    """The limit that the newest of these leases was granted under, if it is the present one."""
    newest = entitlements.newest(connection, key.customer)
    if newest is None or max((row.granted_at_ms for row in alive), default=0) <= newest.from_ms:
        return None
    return next((limit for limit in decode_document(newest.body).limits if limit.counter == key.counter), None)


def _passes(account: allowances.Row, alive: list[leases.Row], limit: Limit | None) -> Iterator[str]:
    where = "/".join(str(part) for part in account.key)
    if account.posted or account.direct:
        yield f"{where}: {account.posted} posted and {account.direct} debited, though nothing of it is used up"
    bursts = sum(burst_left(row.granted, row.burst, row.cap) for row in alive)
    if bursts != account.burst_lent:
        yield f"{where}: bursts lent and bursts of leases differ: {account.burst_lent} and {bursts}"
    if limit is None or limit.amount is None:
        return
    if account.outstanding > limit.amount:
        yield f"{where}: {account.outstanding} is lent of {limit.amount}"
    if limit.smooth and bursts > limit.burst_max:
        yield f"{where}: bursts of {bursts} are lent of {limit.burst_max}"
