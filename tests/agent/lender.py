"""The other side of a sync for the agent's tests: lends every kind of limit by the contract's rules, and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.admission import Priority
from protocol.codec import MsgpackDecoder
from protocol.entitlements import Entitlement, Limit, limits_on_path, scope_value
from protocol.events import UsageEvent
from protocol.instants import DURATION_MS_MAX, INSTANT_MS_MAX
from protocol.leases import Denial, Grant, LeaseReport, Recall, Renewal, Standing, burst_left
from protocol.rates import RateCard
from protocol.uplink_messages import Ask, HighWater, SyncReply, SyncRequest
from protocol.windows import WindowKind

HOUR_MS = 3_600_000
PERIOD_MS = {WindowKind.MINUTE: 60_000, WindowKind.HOUR: HOUR_MS, WindowKind.DAY: 24 * HOUR_MS}
_events = MsgpackDecoder(list[UsageEvent])

Key = tuple[str, str, str]


@dataclass
class Lent:
    """One lease as the lender sees it.

    Attributes:
        window: 0 for the present one, 1 for one that was granted ahead.
        slots: it is given back and never used up. burst: it is a share of a rate.
    """

    key: Key
    granted: int
    cap: int
    boot: int
    settled: int = 0
    unreported: int = 0
    closed: bool = False
    window: int = 0
    finishing: bool = False
    slots: bool = False
    burst: int = 0
    renewed_at_ms: int = 0

    @property
    def charge(self) -> int:
        if self.closed and (self.slots or self.burst):
            return 0
        return min(self.settled + self.unreported, self.granted) if self.closed else self.cap

    @property
    def burst_now(self) -> int:
        return 0 if self.closed else burst_left(self.granted, self.burst, self.cap)


@dataclass
class Bucket:
    """What is saved up of a rate's part that is not lent, in parts of which ``per_ms`` make a unit."""

    per_ms: int
    parts: int
    at_ms: int


@dataclass
class Lender:
    """Never lends more than is left; only the holder gives back, but for shares of rates, which the clock ends.

    Attributes:
        slice: of a quota or of slots, the least that is lent. share: of a rate, the most.
        recalling: how much of these leases may be kept.
        asked: every ask that was heard, repeats included.
        loose_windows: the present window is always an hour from its end, as most tests want it.
    """

    clock: Callable[[], int] = lambda: 0
    entitlements: dict[str, Entitlement] = field(default_factory=dict)
    leases: dict[str, Lent] = field(default_factory=dict)
    events: dict[tuple[str, str], UsageEvent] = field(default_factory=dict)
    high_water: dict[int, int] = field(default_factory=dict)
    direct: dict[Key, int] = field(default_factory=dict)
    buckets: dict[Key, Bucket] = field(default_factory=dict)
    recalling: dict[str, int] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)
    slice: int = 100
    share: int = INSTANT_MS_MAX
    boot: int = 0
    window_left_ms: int = HOUR_MS
    ttl_ms: int = 60_000
    retry_in_ms: int = 1_000
    standing_elsewhere: int = 0
    central: bool = False

    def limit_of(self, key: Key) -> Limit:
        return next(limit for limit in self.entitlements[key[0]].limits if limit.counter == key[1])

    def charged(self, key: Key, window: int = 0) -> int:
        lent = sum(lent.charge for lent in self.leases.values() if lent.key == key and lent.window == window)
        return lent + (0 if window else self.direct.get(key, 0))

    def answer(self, request: SyncRequest) -> SyncReply:
        self.boot = request.boot
        self._end_silent_shares()
        for report in request.leases:
            self._merge(report)
        if request.snapshot:
            listed = {report.lease for report in request.leases}
            for name, lent in self.leases.items():
                if name not in listed and not lent.closed and lent.boot < request.boot:
                    self._close(lent, 0, 0)
        for batch in request.batches:
            self._accept(batch)
        entitlements, unknown = [], []
        grants: list[Grant] = []
        denials: list[Denial] = []
        for named in request.customers:
            entitlement = self.entitlements.get(named.customer)
            if entitlement is None:
                unknown.append(named.customer)
                continue
            if entitlement.version > named.version:
                entitlements.append(entitlement)
            for first in named.first_calls:
                meters = {
                    **first.amounts,
                    **RateCard(entitlement.rates).choose(first.feature, first.model).most(first.amounts),
                }
                for index, limit in enumerate(entitlement.limits):
                    if limit.is_leased and limit in limits_on_path((limit,), first.feature, meters, first.subject.role):
                        key = (named.customer, limit.counter, scope_value(limit, first.subject, first.tags))
                        need = meters[limit.meter]
                        wish = Ask(f"{first.leases}.{index}", key[1], key[2], need, priority=first.priority)
                        self._lend(wish, key, grants, denials)
            for ask in named.asks:
                self.asked.append(ask)
                self._lend(ask, (named.customer, ask.counter, ask.scope_value), grants, denials)
        open_now = [r.lease for r in request.leases if not self.leases[r.lease].closed]
        for name in open_now:
            self.leases[name].renewed_at_ms = self.clock()
        return SyncReply(
            high_water=tuple(HighWater(boot, seq) for boot, seq in self.high_water.items()),
            entitlements=tuple(entitlements),
            unknown_customers=tuple(unknown),
            grants=tuple(grants),
            denials=tuple(denials),
            renewed=tuple(Renewal(name, self.ttl_ms, self._standing(self.leases[name].key)) for name in open_now),
            recalls=tuple(Recall(name, self.recalling[name]) for name in open_now if name in self.recalling),
            closed=tuple(r.lease for r in request.leases if self.leases[r.lease].closed),
        )

    def _merge(self, report: LeaseReport) -> None:
        lent = self.leases[report.lease]
        if lent.closed:
            return
        if lent.burst:
            before = lent.burst_now
            self._fill(lent.key)
            lent.cap = min(lent.cap, report.cap)
            if report.closed:
                self._close(lent, 0, 0, report.level)
            else:
                self._pour(lent.key, min(report.level, before - lent.burst_now))
            return
        lent.cap = min(lent.cap, report.cap)
        lent.settled = max(lent.settled, report.settled)
        lent.unreported = report.unreported
        assert not (report.closed and lent.slots and report.unreported), "slots are held, perhaps"
        lent.closed = report.closed

    def _close(self, lent: Lent, settled: int, unreported: int, level: int = 0) -> None:
        back = lent.burst_now
        if lent.burst:
            self._fill(lent.key)  # until now it filled at what was not lent
        lent.closed, lent.settled, lent.unreported = True, settled, unreported
        if lent.burst:
            self._pour(lent.key, min(level, back))

    def _end_silent_shares(self) -> None:
        for lent in self.leases.values():
            if lent.burst and not lent.closed and self.clock() > lent.renewed_at_ms + self.ttl_ms * 1005 // 1000 + 250:
                self._close(lent, 0, 0)

    def _accept(self, batch) -> None:
        events = _events(batch.body)
        assert len(events) == batch.count
        mark = self.high_water.get(batch.boot, 0)
        assert batch.first <= mark + 1, "a gap"
        for seq, event in enumerate(events, batch.first):
            if seq <= mark:
                continue
            assert (event.customer, event.event) not in self.events, "the same event twice"
            self.events[event.customer, event.event] = event
            self._debit(event)
        self.high_water[batch.boot] = max(mark, batch.first + batch.count - 1)

    def _debit(self, event: UsageEvent) -> None:
        for limit in limits_on_path(
            self.entitlements[event.customer].limits, event.feature, event.amounts, event.subject.role
        ):
            if not limit.is_counted:
                continue
            key = (event.customer, limit.counter, scope_value(limit, event.subject, event.tags))
            paid = sum(charge.amount for charge in event.charges if self.leases[charge.lease].key == key)
            if rest := event.amounts[limit.meter] - paid:
                self.direct[key] = self.direct.get(key, 0) + rest

    def _standing(self, key: Key) -> Standing:
        amount = self.limit_of(key).amount
        assert amount is not None
        return Standing(amount, self.standing_elsewhere)

    def _lend(self, ask: Ask, key: Key, grants: list[Grant], denials: list[Denial]) -> None:
        limit = self.limit_of(key)
        if limit.smooth:
            self._lend_share(ask, key, limit, grants, denials)
            return
        ceiling = limit.ceiling if ask.finishing else limit.admission_ceiling
        assert ceiling is not None
        floor = limit.batch_floor if ask.priority is Priority.BATCH else 0
        window = 1 if ask.ahead else 0
        left = ceiling - self.charged(key, window) - floor
        known = self.leases.get(ask.lease)
        wanted = ask.need if ask.finishing or self.central else max(ask.need, self.slice)
        amount = known.granted if known else min(left, wanted)
        start_ms, end_ms, starts_in_ms, left_ms = self._window(limit, ahead=ask.ahead)
        if known is None and (amount < ask.need or amount <= 0 or (ask.ahead and not limit.is_counted)):
            denials.append(self._denial(ask, key, left < ask.need, start_ms, end_ms, left_ms))
            return
        slots = limit.window is WindowKind.IN_FLIGHT
        self.leases.setdefault(
            ask.lease, Lent(key, amount, amount, self.boot, window=window, finishing=ask.finishing, slots=slots)
        )
        grants.append(
            Grant(
                ask.lease, *key, amount, self.ttl_ms, start_ms, end_ms, left_ms, self._standing(key),
                central=self.central, starts_in_ms=starts_in_ms, finishing=ask.finishing,
            )
        )  # fmt: skip

    def _window(self, limit: Limit, *, ahead: bool) -> tuple[int, int, int, int]:
        """Start, end, in how long it starts and ends."""
        if not limit.is_counted or limit.window is WindowKind.LIFETIME:
            return 0, INSTANT_MS_MAX, 0, DURATION_MS_MAX
        if ahead:
            return HOUR_MS, 2 * HOUR_MS, self.window_left_ms, self.window_left_ms + HOUR_MS
        return 0, HOUR_MS, 0, self.window_left_ms

    def _denial(self, ask: Ask, key: Key, exhausted: bool, start_ms: int, end_ms: int, left_ms: int) -> Denial:
        version = self.entitlements[key[0]].version
        return Denial(
            ask.lease, *key, exhausted, version, self.retry_in_ms, start_ms, end_ms, left_ms, self._standing(key)
        )

    # Rates: what is not lent fills a bucket of the lender's own.

    def shares(self, key: Key) -> list[Lent]:
        return [lent for lent in self.leases.values() if lent.key == key and not lent.closed]

    def _fill(self, key: Key) -> Bucket:
        limit = self.limit_of(key)
        per_ms = PERIOD_MS[limit.window]
        bucket = self.buckets.setdefault(key, Bucket(per_ms, limit.burst_max * per_ms, self.clock()))
        rate = (limit.amount or 0) - sum(lent.cap for lent in self.shares(key))
        most = limit.burst_max - sum(lent.burst_now for lent in self.shares(key))
        assert rate >= 0
        assert most >= 0
        bucket.parts = min(most * per_ms, bucket.parts + (self.clock() - bucket.at_ms) * rate)
        bucket.at_ms = self.clock()
        return bucket

    def _pour(self, key: Key, level: int) -> None:
        bucket = self._fill(key)
        bucket.parts += level * bucket.per_ms
        self._fill(key)

    def _lend_share(self, ask: Ask, key: Key, limit: Limit, grants: list[Grant], denials: list[Denial]) -> None:
        known = self.leases.get(ask.lease)
        bucket = self._fill(key)
        if known is None:
            rate = (limit.amount or 0) - sum(lent.cap for lent in self.shares(key))
            burst = limit.burst_max - sum(lent.burst_now for lent in self.shares(key))
            amount = min(rate, self.share)
            share_burst = burst if amount == rate else burst * amount // rate
            if amount < 1 or share_burst < 1:
                denials.append(self._denial(ask, key, False, 0, INSTANT_MS_MAX, DURATION_MS_MAX))
                return
            known = Lent(key, amount, amount, self.boot, burst=share_burst, renewed_at_ms=self.clock())
            level = min(bucket.parts // bucket.per_ms, share_burst)
            bucket.parts -= level * bucket.per_ms
            self.leases[ask.lease] = known
            self.levels[ask.lease] = level
            self._fill(key)
        grants.append(
            Grant(
                ask.lease, *key, known.granted, self.ttl_ms, 0, INSTANT_MS_MAX, DURATION_MS_MAX, self._standing(key),
                per_ms=bucket.per_ms, burst=known.burst, level=self.levels[ask.lease],
            )
        )  # fmt: skip

    levels: dict[str, int] = field(default_factory=dict)
