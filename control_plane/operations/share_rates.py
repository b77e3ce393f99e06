"""Lends shares of rates, and asks holders down to their fair share when somebody is short."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core import lease_life, rates
from control_plane.core.lease_life import Status
from control_plane.core.rates import NO_SHARE, Offer, Share
from control_plane.operations.accounts import Account
from control_plane.operations.answer_wishes import deny, grant, new_lease
from control_plane.operations.exchange import Exchange
from control_plane.operations.find_wishes import DRY_MS, Wish
from control_plane.operations.keep_books import life_of
from control_plane.operations.recall_leases import DEBOUNCE_MS
from control_plane.store import changes, leases
from control_plane.store.allowances import Key
from control_plane.store.changes import Change
from control_plane.store.demands import Demand
from protocol.leases import burst_left

SOON_MS = 250
_WITHIN_REACH = frozenset({Status.OPEN.value, Status.RECALLED.value})


class RateLender:
    """Shares of the rates of one sync. The allowances must be held."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._rows: dict[Key, list[leases.Row]] = {}

    def has_room(self, wish: Wish, crowd: Sequence[Demand]) -> bool:
        """Whether there is a share that the waiting call fits into, be it that it must wait for its bucket to fill."""
        return self._burst_with(wish, self._offer(wish, crowd)) >= max(wish.want.need, 1)

    def lend(self, wish: Wish, crowd: Sequence[Demand]) -> None:
        """Lend what is there; ask others for what is lacking. A first call that does not fit into it gets nothing."""
        exchange = self._exchange
        offer = self._offer(wish, crowd)
        fits = self._burst_with(wish, offer) >= wish.want.need
        account = exchange.books.accounts[wish.key]
        if wish.want.need and offer.lacking != NO_SHARE:
            self._recall(wish, crowd, account, offer)
        if wish.call and fits and offer.share is None and wish.want.need:
            return  # it holds a share that the call fits into
        if offer.share is None or (wish.call and not fits):
            too_large = wish.want.need > wish.limit.burst_max
            waits = wish.want.need and offer.lacking != NO_SHARE and not too_large
            if wish.want.need or not wish.quiet:
                deny(exchange, wish, exhausted=too_large, retry_in_ms=SOON_MS if waits else DRY_MS)
            return
        row = new_lease(exchange, wish, offer.share.amount)._replace(burst=offer.share.burst)
        row = exchange.books.lend(row, "first_call" if wish.call else "ask")
        exchange.rows[row.lease] = row
        self._rows[wish.key].append(row)
        grant(exchange, wish, row)

    def _burst_with(self, wish: Wish, offer: Offer) -> int:
        """How much may be saved up with what is offered and what the agent holds already."""
        mine = self._held(wish).get(self._exchange.agent, NO_SHARE)
        return mine.burst + (offer.share.burst if offer.share else 0)

    def _offer(self, wish: Wish, crowd: Sequence[Demand]) -> Offer:
        # What batch calls leave of a rate, its holders see to: a share is not for one kind of calls alone.
        account = self._exchange.books.govern(wish.key, wish.limit.amount or 0, wish.limit.burst_max)
        mine = self._held(wish).get(self._exchange.agent, NO_SHARE)
        return rates.offer(account.pool, mine, self._fair(wish, crowd, account)[self._exchange.agent], wish.want.need)

    def _fair(self, wish: Wish, crowd: Sequence[Demand], account: Account) -> dict[str, int]:
        """What everybody should have who asks or holds; of whom no demand is known takes part in full."""
        pool = account.pool
        wanted = dict.fromkeys(self._held(wish), pool.amount)
        for demand in crowd:
            a_period = -(-demand.demand_per_min * pool.period_ms // 60_000)
            wanted[demand.agent] = min(max(a_period, demand.typical), pool.amount) if a_period else pool.amount
        return rates.fair_shares(pool.amount, wanted)

    def _held(self, wish: Wish) -> dict[str, Share]:
        if wish.key not in self._rows:
            self._exchange.books.flush_leases()
            self._exchange.unit.write_leases()
            self._rows[wish.key] = leases.alive_in_allowance(self._exchange.connection, wish.key)
        held: dict[str, Share] = {}
        for row in self._rows[wish.key]:
            before = held.get(row.agent, NO_SHARE)
            burst = burst_left(row.granted, row.burst, row.cap)
            held[row.agent] = Share(before.amount + row.cap, before.burst + burst)
        return held

    def _recall(self, wish: Wish, crowd: Sequence[Demand], account: Account, offer: Offer) -> None:
        """Ask those above their fair share for the rest: one round an allowance, and not too often."""
        exchange = self._exchange
        if exchange.now_ms - account.recalled_at_ms < DEBOUNCE_MS:
            return
        account.note_shortage(exchange.now_ms)
        held = {agent: share for agent, share in self._held(wish).items() if agent != exchange.agent}
        keep = rates.keep_after_recall(held, self._fair(wish, crowd, account), offer.lacking)
        for at, row in enumerate(self._rows[wish.key]):
            if row.agent not in keep or row.status not in _WITHIN_REACH:
                continue
            life = lease_life.recall(life_of(row), row.cap * keep[row.agent] // held[row.agent].amount)
            asked_back = row._replace(status=life.status.value, keep=life.keep)
            self._rows[wish.key][at] = exchange.books.change(asked_back)
            exchange.books.announce(Change(row.customer, changes.RECALL, row.agent))
