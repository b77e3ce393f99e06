"""Lends slices of allowances to an agent that asks, or says why not."""

from __future__ import annotations

from itertools import groupby

from control_plane.core import allocation
from control_plane.core.allocation import Crowd
from control_plane.core.kinds import Kind
from control_plane.core.lease_life import Status
from control_plane.operations.accounts import Account
from control_plane.operations.answer_wishes import deny, grant, new_lease
from control_plane.operations.exchange import Exchange
from control_plane.operations.find_wishes import AT_ONCE_MS, DRY_MS, Wish
from control_plane.operations.learn_again import RETRY_MS
from control_plane.operations.recall_leases import recall_leases
from control_plane.operations.share_rates import RateLender
from control_plane.store import leases
from control_plane.store.demands import Demand, Place, Together

LATELY_MS = 60_000
SOON_MS = 500
NOTHING_AHEAD_MS = 2_000
SLOTS_SOON_MS = 500
"""Slots that all are held come back when calls end, and no message says so before their holder is asked for them."""


class Lender:
    """Grants or denies the wishes of one sync, in their order."""

    def __init__(self, exchange: Exchange, wishes: list[Wish]) -> None:
        self._exchange = exchange
        self._wishes = wishes
        self._crowds: dict[Place, Together] = {}
        self._sharers: dict[Place, list[Demand]] = {}
        self._rates = RateLender(exchange)

    def lend(self) -> None:
        """Answer every wish. The allowances must be held, and the reports taken in."""
        if not self._wishes:
            return
        self._note_demand()
        for call, wishes in groupby(self._wishes, key=lambda wish: wish.call):
            for wish in self._all_or_none(list(wishes)) if call else wishes:
                self._answer(wish)

    def _all_or_none(self, wishes: list[Wish]) -> list[Wish]:
        """Of a first call's wishes all, or only those that stand in its way: nothing is lent to a call that cannot go
        ahead, and the limits that are answered are those that decided."""
        return [wish for wish in wishes if wish.want.need and not self._has_room(wish)] or wishes

    def _has_room(self, wish: Wish) -> bool:
        if wish.lease in self._exchange.rows:
            return True
        if wish.kind is Kind.RATE:
            return self._rates.has_room(wish, self._sharers[wish.place])
        return self._exchange.books.accounts[wish.key].available(wish.ceiling) >= wish.want.need

    def _answer(self, wish: Wish) -> None:
        exchange = self._exchange
        row = exchange.rows.get(wish.lease)
        if row is not None:
            self._again(wish, row)
        elif (wish.key.customer, wish.lease) in exchange.taken:
            exchange.answer.unknown_leases[wish.lease] = None
            deny(exchange, wish, exhausted=False, retry_in_ms=AT_ONCE_MS)
        elif exchange.is_overtaken:  # nobody reads this answer: what it granted would lie lent to nobody
            deny(exchange, wish, exhausted=False, retry_in_ms=AT_ONCE_MS)
        elif exchange.trust.generation.is_learning(exchange.now_ms):
            if not wish.quiet:
                deny(exchange, wish, exhausted=False, retry_in_ms=RETRY_MS)
        elif wish.kind is Kind.RATE:
            self._rates.lend(wish, self._sharers[wish.place])
        else:
            self._first_time(wish)

    def _note_demand(self) -> None:
        exchange = self._exchange
        mine: dict[Place, Demand] = {}
        for wish in self._wishes:
            before = mine.get(wish.place, Demand(exchange.agent, 0, 0))
            demand_per_min = max(before.demand_per_min, wish.want.demand_per_min)
            mine[wish.place] = Demand(exchange.agent, demand_per_min, max(before.typical, wish.want.typical))
        since_ms = exchange.now_ms - LATELY_MS
        shared = {wish.place for wish in self._wishes if wish.kind is Kind.RATE}
        lately = exchange.unit.lately(shared, since_ms)
        others = exchange.unit.asked_by_others(mine.keys() - shared, exchange.agent, since_ms)
        for place, demand in mine.items():
            if place in shared:
                rivals = [other for other in lately.get(place, ()) if other.agent != exchange.agent]
                self._sharers[place] = [*rivals, demand]
            else:
                rest = others[place]
                self._crowds[place] = Together(rest.agents + 1, rest.demand_per_min + demand.demand_per_min)
        exchange.unit.note_demand(mine, exchange.now_ms)

    def _crowd(self, wish: Wish) -> Crowd:
        agents, demand_per_min = self._crowds[wish.place]
        used = self._exchange.used_of(wish.key)
        return Crowd(agents, demand_per_min, used.central)

    def _first_time(self, wish: Wish) -> None:
        exchange = self._exchange
        account = exchange.books.accounts[wish.key]
        available = account.available(wish.ceiling)
        slice_ = self._slice(wish, available)
        if slice_ is None:
            self._refuse(wish, account, available)
            return
        assert wish.limit.amount is not None
        overage = allocation.beyond_limit(wish.limit.amount, account.taken, slice_.amount)
        row = new_lease(exchange, wish, slice_.amount)._replace(
            overage=overage, central=slice_.central, finishing=wish.finishing
        )
        exchange.rows[row.lease] = exchange.books.lend(row, "first_call" if wish.call else "ask")
        if slice_.central:
            self._recall_early(wish, account, available)
            exchange.note_central(wish.key)
        grant(exchange, wish, row)

    def _recall_early(self, wish: Wish, account: Account, available: int) -> None:
        """Calls are lent one by one here, while more lies unused elsewhere: ask for it before anybody is refused."""
        lent_ahead = self._lent_ahead(wish, account) - wish.want.need
        if wish.kind is Kind.QUOTA and allocation.recalls_early(available, lent_ahead, wish.want.need):
            recall_leases(self._exchange.books, account, self._exchange.agent, wish.want.need, available)

    def _lent_ahead(self, wish: Wish, account: Account) -> int:
        """What lies unused with holders, as last heard."""
        used = self._exchange.used_of(wish.key)
        return account.outstanding - used.settled - used.in_flight - used.unreported

    def _slice(self, wish: Wish, available: int) -> allocation.Slice | None:
        if not wish.finishing:
            return allocation.slice_of(available, wish.want, self._crowd(wish))
        # The reserve is for calls that are under way: no host keeps more of it than those it has need.
        need = wish.want.need
        return allocation.Slice(need, central=False) if 0 < need <= available else None

    def _again(self, wish: Wish, row: leases.Row) -> None:
        """The answer to the first asking was lost: the same lease, never a second one."""
        exchange = self._exchange
        same = row.key[:3] == wish.key[:3] and row.journal == exchange.request.journal
        if same and row.status != Status.CLOSED:
            if row.status in {Status.EXPIRED, Status.LIMBO}:
                row = row._replace(status=Status.OPEN.value)
            row = exchange.books.change(row._replace(renewed_at_ms=exchange.now_ms))
            exchange.rows[row.lease] = row
            grant(exchange, wish, row)
            return
        (exchange.answer.closed if same else exchange.answer.unknown_leases)[wish.lease] = None
        deny(exchange, wish, exhausted=False, retry_in_ms=AT_ONCE_MS)

    def _refuse(self, wish: Wish, account: Account, available: int) -> None:
        exchange = self._exchange
        need = wish.want.need
        if need == 0:
            if not wish.quiet:
                deny(exchange, wish, exhausted=False, retry_in_ms=NOTHING_AHEAD_MS)
            return
        used = exchange.used_of(wish.key)
        held = 0 if wish.kind is Kind.SLOTS else used.in_flight
        if wish.ceiling - account.posted - account.direct - used.settled - used.unreported - held < need:
            if exchange.now_ms - account.recalled_at_ms >= DRY_MS:
                account.note_shortage(exchange.now_ms)
            deny(exchange, wish, exhausted=True, retry_in_ms=DRY_MS)
            return
        may_come = recall_leases(exchange.books, account, exchange.agent, need, available)
        if wish.kind is Kind.QUOTA and not may_come:
            deny(exchange, wish, exhausted=False, retry_in_ms=DRY_MS)
            return
        retry_in_ms = SOON_MS
        if wish.kind is Kind.QUOTA:
            crowd = self._crowd(wish)
            retry_in_ms = allocation.retry_in_ms(need, self._lent_ahead(wish, account), crowd.agents)
        elif wish.ceiling - used.unreported - used.in_flight < need:
            retry_in_ms = SLOTS_SOON_MS
        deny(exchange, wish, exhausted=False, retry_in_ms=retry_in_ms)
