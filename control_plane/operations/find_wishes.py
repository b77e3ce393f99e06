"""What one sync asks to be lent: which slices of which allowances, in which window, for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from control_plane.core.allocation import Want
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.kinds import Kind, kind_of
from control_plane.operations.exchange import Exchange, is_scope_value
from control_plane.store.allowances import Key
from control_plane.store.demands import Place
from protocol.admission import Priority
from protocol.entitlements import CustomerStatus, InFlight, Limit, limits_on_path, scope_value
from protocol.leases import Denial, Standing
from protocol.rates import RateCard
from protocol.uplink_messages import Ask, CustomerSync, FirstCall
from protocol.windows import Window

DRY_MS = 5_000
AT_ONCE_MS = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """One slice that is asked for, of an allowance that exists.

    Attributes:
        quiet: refused without a word where nothing is needed of it.
        call: the first call that asks; its slices are lent together or not at all. Empty for an ask by itself.
        finishing: for calls in flight that go on beyond the limit.
        batch: for calls that leave the limit's floor to the others. A courtesy to those, not a rule of safety: what is
            lent may be used by any call.
    """

    lease: str
    limit: Limit
    key: Key
    window: Window
    want: Want
    quiet: bool = False
    call: str = ""
    finishing: bool = False
    batch: bool = False

    @property
    def place(self) -> Place:
        """Its allowance, whatever the window."""
        return Place(self.key.customer, self.key.counter, self.key.scope_value)

    @property
    def kind(self) -> Kind:
        """How leases of its counter live."""
        return kind_of(self.key.counter)

    @property
    def ceiling(self) -> int:
        """The most that this may bring its allowance to."""
        ceiling = self.limit.ceiling if self.finishing else self.limit.admission_ceiling
        assert ceiling is not None
        assert self.limit.amount is not None
        if self.batch and self.limit.batch_floor:
            return min(ceiling, self.limit.amount - self.limit.batch_floor)
        return ceiling


def find_wishes(exchange: Exchange) -> list[Wish]:
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
    """Every limit on the path of a call that the plan allows, those on what the call is turned into included."""
    entitlement = exchange.entitlements[named.customer]
    if entitlement.status is not CustomerStatus.ACTIVE or call.feature not in {
        feature.key for feature in entitlement.features
    }:
        return
    amounts = {**call.amounts, **RateCard(entitlement.rates).choose(call.feature, call.model).most(call.amounts)}
    on_path = {limit.key for limit in limits_on_path(entitlement.limits, call.feature, amounts, call.subject.role)}
    for at, limit in enumerate(entitlement.limits):
        if limit.key not in on_path or not limit.is_leased:
            continue
        whose = scope_value(limit, call.subject, call.tags)
        window = exchange.window(named.customer, limit)
        need = amounts[limit.meter]
        yield Wish(
            lease=f"{call.leases}.{at}",
            limit=limit,
            key=Key(named.customer, limit.counter, whose, window.start_ms),
            window=window,
            want=Want(need, 0, need),
            quiet=need == 0,
            call=call.leases,
            batch=call.priority is Priority.BATCH,
        )


def _ask(exchange: Exchange, named: CustomerSync, ask: Ask) -> Wish | None:
    limit = exchange.limit(named.customer, ask.counter)
    if limit is None or not is_scope_value(limit, ask.scope_value):
        _deny_for_good(exchange, named, ask, exhausted=True)
        return None
    window = exchange.window(named.customer, limit)
    if ask.ahead:
        following = limit.window_at(window.end_ms, exchange.calendar(named.customer))
        if following.start_ms != window.end_ms:  # it never ends
            _deny_for_good(exchange, named, ask, exhausted=False)
            return None
        window = following
        limit = exchange.limit_from(named.customer, ask.counter, window.start_ms)
        if limit is None:
            _deny_for_good(exchange, named, ask, exhausted=True)
            return None
    finishing = ask.finishing and limit.in_flight is InFlight.FINISH
    # Slots are taken and given back: how often says nothing of how many are held.
    demand_per_min = 0 if kind_of(ask.counter) is Kind.SLOTS else ask.demand_per_min
    return Wish(
        lease=ask.lease,
        limit=limit,
        key=Key(named.customer, ask.counter, ask.scope_value, window.start_ms),
        window=window,
        want=Want(ask.need, demand_per_min, ask.typical or ask.need),
        finishing=finishing,
        batch=ask.priority is Priority.BATCH and not finishing,
    )


def _deny_for_good(exchange: Exchange, named: CustomerSync, ask: Ask, *, exhausted: bool) -> None:
    entitlement = exchange.entitlements.get(named.customer)
    exchange.answer.denials.append(
        Denial(
            lease=ask.lease,
            customer=named.customer,
            counter=ask.counter,
            scope_value=ask.scope_value,
            exhausted=exhausted,
            version=entitlement.version if entitlement else 0,
            retry_in_ms=DRY_MS,
            window_start_ms=0,
            window_end_ms=0,
            window_left_ms=0,
            standing=Standing(0, 0),
        )
    )
