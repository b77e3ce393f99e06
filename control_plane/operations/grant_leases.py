"""Lends slices of allowances to an agent that asks, or says why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from control_plane.core import allocation
from control_plane.core.allocation import Crowd, Want
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.lease_life import Status
from control_plane.core.seals import seal_of
from control_plane.operations.exchange import LEASE_TTL_MS, Exchange, is_scope_value
from control_plane.operations.keep_books import Account
from control_plane.operations.learn_again import RETRY_MS
from control_plane.operations.recall_leases import recall_leases
from control_plane.store import demands, leases
from control_plane.store.allowances import Key
from control_plane.store.demands import Demand, Place
from protocol.entitlements import CustomerStatus, Limit, limits_on_path, scope_value
from protocol.leases import Denial, Grant, Standing
from protocol.uplink_messages import Ask, CustomerSync, FirstCall
from protocol.windows import Window

LATELY_MS = 60_000
DRY_MS = 5_000
SOON_MS = 250
AT_ONCE_MS = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """One slice that is asked for, of an allowance that exists; ``quiet``: refused without a word where nothing is
    needed of it."""

    lease: str
    limit: Limit
    key: Key
    window: Window
    want: Want
    quiet: bool = False

    @property
    def place(self) -> Place:
        """Its allowance, whatever the window."""
        return Place(self.key.customer, self.key.counter, self.key.scope_value)


def collect_wishes(exchange: Exchange) -> list[Wish]:
    """What is asked for, and could be granted; what never could be is answered at once."""
    if exchange.request.stopping or exchange.speaker is Speaker.LATE:
        return []
    wishes: list[Wish] = []
    for named in exchange.request.customers:
        if named.customer in exchange.entitlements:
            wishes += [wish for call in named.first_calls for wish in _first_call(exchange, named, call)]
        wishes += [wish for ask in named.asks if (wish := _ask(exchange, named, ask)) is not None]
    for wish in wishes:
        exchange.touch(wish.key, wish.window.end_ms)
    return list({wish.lease: wish for wish in wishes}.values())


def _first_call(exchange: Exchange, named: CustomerSync, call: FirstCall) -> Iterator[Wish]:
    entitlement = exchange.entitlements[named.customer]
    if entitlement.status is not CustomerStatus.ACTIVE:
        return
    on_path = {limit.key for limit in limits_on_path(entitlement.limits, call.feature, call.amounts)}
    for at, limit in enumerate(entitlement.limits):
        if limit.key not in on_path or not limit.is_leased:
            continue
        whose = scope_value(limit, call.subject, call.tags)
        window = exchange.window(named.customer, limit)
        key = Key(named.customer, limit.counter, whose, window.start_ms)
        need = call.amounts[limit.meter]
        yield Wish(f"{call.leases}.{at}", limit, key, window, Want(need, 0, need), quiet=need == 0)


def _ask(exchange: Exchange, named: CustomerSync, ask: Ask) -> Wish | None:
    limit = exchange.limit(named.customer, ask.counter)
    if limit is None or not is_scope_value(limit, ask.scope_value):
        entitlement = exchange.entitlements.get(named.customer)
        version = entitlement.version if entitlement else 0
        exchange.answer.denials.append(
            Denial(
                ask.lease, named.customer, ask.counter, ask.scope_value, True, version, DRY_MS, 0, 0, 0, Standing(0, 0)
            )
        )
        return None
    window = exchange.window(named.customer, limit)
    key = Key(named.customer, ask.counter, ask.scope_value, window.start_ms)
    return Wish(ask.lease, limit, key, window, Want(ask.need, ask.demand_per_min, ask.typical or ask.need))


class Lender:
    """Grants or denies the wishes of one sync, in their order."""

    def __init__(self, exchange: Exchange, wishes: list[Wish]) -> None:
        self._exchange = exchange
        self._wishes = wishes
        self._crowds: dict[Place, list[Demand]] = {}
        self._strange: set[tuple[str, str]] = set()

    def lend(self) -> None:
        """Answer every wish. The allowances must be held, and the reports taken in."""
        if not self._wishes:
            return
        exchange = self._exchange
        self._strange = leases.taken_by_others(
            exchange.connection, exchange.agent, [(wish.key.customer, wish.lease) for wish in self._wishes]
        )
        self._note_demand()
        for wish in self._wishes:
            row = exchange.rows.get(wish.lease)
            if row is not None:
                self._again(wish, row)
            elif (wish.key.customer, wish.lease) in self._strange:
                exchange.answer.unknown_leases[wish.lease] = None
                self._deny(wish, exhausted=False, retry_in_ms=AT_ONCE_MS)
            else:
                self._first_time(wish)

    def _note_demand(self) -> None:
        exchange = self._exchange
        mine = {
            wish.place: Demand(exchange.agent, wish.want.demand_per_min, wish.want.typical) for wish in self._wishes
        }
        lately = demands.lately(exchange.connection, mine, exchange.now_ms - LATELY_MS)
        for place, demand in mine.items():
            others = [other for other in lately.get(place, ()) if other.agent != exchange.agent]
            self._crowds[place] = [*others, demand]
        demands.note(exchange.connection, mine, exchange.now_ms)

    def _crowd(self, wish: Wish) -> Crowd:
        crowd = self._crowds[wish.place]
        used = self._exchange.used.get(wish.key, leases.NOTHING_USED)
        return Crowd(
            len(crowd),
            sum(demand.demand_per_min for demand in crowd),
            max(demand.typical for demand in crowd),
            used.central,
        )

    def _first_time(self, wish: Wish) -> None:
        exchange = self._exchange
        if exchange.trust.generation.is_learning(exchange.now_ms):
            if not wish.quiet:
                self._deny(wish, exhausted=False, retry_in_ms=RETRY_MS)
            return
        account = exchange.books.accounts[wish.key]
        assert wish.limit.ceiling is not None
        available = account.available(wish.limit.ceiling)
        slice_ = allocation.slice_of(available, wish.want, self._crowd(wish))
        if slice_ is None:
            self._refuse(wish, account, available)
            return
        assert wish.limit.amount is not None
        overage = allocation.beyond_limit(wish.limit.amount, account.taken, slice_.amount)
        row = _new_lease(exchange, wish, slice_, overage)
        exchange.books.lend(row, "first_call" if wish.want.demand_per_min == 0 else "ask")
        exchange.rows[row.lease] = row
        if slice_.central:
            used = exchange.used.get(wish.key, leases.NOTHING_USED)
            exchange.used[wish.key] = used._replace(central=True)
        self._grant(wish, row)

    def _again(self, wish: Wish, row: leases.Row) -> None:
        """The answer to the first asking was lost: the same lease, never a second one."""
        same = row.key[:3] == wish.key[:3] and row.journal == self._exchange.request.journal
        if same and row.status != Status.CLOSED:
            if row.status in {Status.EXPIRED, Status.LIMBO}:
                row = row._replace(status=Status.OPEN.value)
            row = self._exchange.books.change(row._replace(renewed_at_ms=self._exchange.now_ms))
            self._exchange.rows[row.lease] = row
            self._grant(wish, row)
            return
        answer = self._exchange.answer
        (answer.closed if same else answer.unknown_leases)[wish.lease] = None
        self._deny(wish, exhausted=False, retry_in_ms=AT_ONCE_MS)

    def _refuse(self, wish: Wish, account: Account, available: int) -> None:
        exchange = self._exchange
        need = wish.want.need
        if need == 0:
            if not wish.quiet:
                self._deny(wish, exhausted=False, retry_in_ms=AT_ONCE_MS)
            return
        used = exchange.used.get(wish.key, leases.NOTHING_USED)
        assert wish.limit.ceiling is not None
        free_at_most = wish.limit.ceiling - account.posted - account.direct
        free_at_most -= used.settled + used.in_flight + used.unreported
        if free_at_most < need:
            if exchange.now_ms - account.recalled_at_ms >= DRY_MS:
                account.note_shortage(exchange.now_ms)
            self._deny(wish, exhausted=True, retry_in_ms=DRY_MS)
            return
        recall_leases(exchange.books, account, exchange.agent, need, available)
        self._deny(wish, exhausted=False, retry_in_ms=SOON_MS)

    def _grant(self, wish: Wish, row: leases.Row) -> None:
        exchange = self._exchange
        account = exchange.books.accounts[row.key]
        grant = Grant(
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
        )
        seal = seal_of(exchange.trust.key, exchange.agent, row.journal, grant)
        exchange.answer.grants.append(msgspec.structs.replace(grant, seal=seal))

    def _deny(self, wish: Wish, *, exhausted: bool, retry_in_ms: int) -> None:
        exchange = self._exchange
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


def _new_lease(exchange: Exchange, wish: Wish, slice_: allocation.Slice, overage: int) -> leases.Row:
    return leases.Row(
        customer=wish.key.customer,
        lease=wish.lease,
        counter=wish.key.counter,
        scope_value=wish.key.scope_value,
        window_start_ms=wish.key.window_start_ms,
        agent=exchange.agent,
        journal=exchange.request.journal,
        boot=exchange.request.boot,
        granted=slice_.amount,
        cap=slice_.amount,
        settled=0,
        in_flight=0,
        unreported=0,
        overage=overage,
        central=slice_.central,
        status=Status.OPEN.value,
        keep=0,
        ttl_ms=LEASE_TTL_MS,
        granted_at_ms=exchange.now_ms,
        renewed_at_ms=exchange.now_ms,
        closed_at_ms=None,
    )
