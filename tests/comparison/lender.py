"""The control plane's half of a sync for one allowance, in memory; sizing, recall and leases' lives are the product's.

What the product keeps in rows is kept in dicts here, and sums are kept up to date instead of being selected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from control_plane.core import allocation, lease_life
from control_plane.core.allocation import Crowd, Want
from control_plane.core.lease_life import Heard, Life, Status
from control_plane.core.recalls import Rest, keep_after_recall
from control_plane.operations.exchange import LEASE_TTL_MS
from control_plane.operations.find_wishes import DRY_MS
from control_plane.operations.grant_leases import LATELY_MS, NOTHING_AHEAD_MS
from control_plane.operations.keep_books import SOMEBODY_WAITS_MS
from control_plane.operations.recall_leases import ANSWERED_MS, DEBOUNCE_MS
from control_plane.operations.reclaim_leases import CLOCK_MARGIN_MS
from protocol.entitlements import CustomerStatus, Entitlement, Feature, FeatureKind, Limit
from protocol.leases import Denial, Grant, LeaseReport, Recall, Renewal, Standing
from protocol.uplink_messages import SyncReply, SyncRequest
from protocol.windows import WindowKind

CUSTOMER = "acme"
METER = "tokens"
WINDOW_MS = 30 * 86_400_000


class News(Protocol):
    """Tells the watches: one agent's, or (``None``) everybody's."""

    def __call__(self, agent: str | None, *, recall: bool = False) -> None: ...


@dataclass(slots=True)
class Held:
    """One lease: whose, how it stands, and whether it is for one call."""

    agent: str
    life: Life
    central: bool
    heard_at_ms: int


@dataclass(slots=True)
class Wishes:
    """Who has lately asked, in the order of asking."""

    since: dict[str, tuple[int, int]] = field(default_factory=dict)
    demand: int = 0

    def note(self, agent: str, want: Want, now_ms: int) -> None:
        """This one asks now; those who have not asked for a minute do not count any longer."""
        self.demand += want.demand_per_min - self.since.pop(agent, (0, 0))[1]
        self.since[agent] = (now_ms, want.demand_per_min)
        for other in list(self._silent(now_ms)):
            self.demand -= self.since.pop(other)[1]

    def demand_of(self, agent: str) -> int:
        """What this one stated, if it has asked lately."""
        return self.since[agent][1] if agent in self.since else 0

    def _silent(self, now_ms: int) -> Iterator[str]:
        for agent, (seen_ms, _) in self.since.items():
            if seen_ms >= now_ms - LATELY_MS:
                return
            yield agent


class Lender:
    """One allowance and its leases."""

    def __init__(self, allowance: int, news: News) -> None:
        self.limit = Limit("tokens", METER, allowance, WindowKind.MONTH)
        feature = Feature("chat", FeatureKind.METERED)
        self.entitlement = Entitlement(
            CUSTOMER, 1, CustomerStatus.ACTIVE, "plan@1", (feature,), (self.limit,), (METER, "requests")
        )
        self.allowance = allowance
        self.posted = 0
        self.outstanding = 0
        self.used_on_leases = 0
        self.central = 0
        self.recalled_at_ms = -SOMEBODY_WAITS_MS
        self.leases: dict[str, Held] = {}
        self.wishes = Wishes()
        self.counts: dict[str, int] = {}
        self._news = news
        self._freed = 0

    def answer(self, agent: str, request: SyncRequest, now_ms: int) -> SyncReply:
        """One sync."""
        self._freed = 0
        recalled: dict[str, None] = {}
        closed = [report.lease for report in request.leases if self._hear(report, now_ms)]
        grants: list[Grant] = []
        denials: list[Denial] = []
        for lease, counter, want in self._wanted(request):
            self.wishes.note(agent, want, now_ms)
            given = self._lend(agent, lease, counter, want, now_ms, recalled)
            if isinstance(given, Grant):
                grants.append(given)
            elif given is not None:
                denials.append(given)
        for other in recalled:
            self._news(other, recall=True)
        worth_it = allocation.worth_announcing(self._freed, self.posted + self.outstanding)
        if worth_it and now_ms - self.recalled_at_ms <= SOMEBODY_WAITS_MS:
            self._count("returns announced")
            self._news(None)
        held = {report.lease: self.leases[report.lease] for report in request.leases if report.lease in self.leases}
        return SyncReply(
            entitlements=tuple(self.entitlement for named in request.customers if named.version == 0),
            grants=tuple(grants),
            denials=tuple(denials),
            renewed=tuple(Renewal(lease, LEASE_TTL_MS, Standing(self.allowance, 0)) for lease in held),
            recalls=tuple(
                Recall(lease, one.life.keep) for lease, one in held.items() if one.life.status is Status.RECALLED
            ),
            closed=tuple(closed),
        )

    def _hear(self, report: LeaseReport, now_ms: int) -> bool:
        one = self.leases.get(report.lease)
        if one is None:
            return True
        before = one.life
        one.heard_at_ms = now_ms
        heard = Heard(report.cap, report.settled, report.in_flight, report.unreported, report.closed)
        one.life, movement = lease_life.hear(before, heard)
        self.outstanding -= movement.returned + movement.released
        self.posted += movement.posted
        self.used_on_leases -= before.settled + before.in_flight + before.unreported
        self._freed += max(0, movement.returned + movement.released - movement.posted)
        if one.life.status is Status.CLOSED:
            self.central -= one.central
            del self.leases[report.lease]
            return True
        self.used_on_leases += one.life.settled + one.life.in_flight + one.life.unreported
        return False

    def _wanted(self, request: SyncRequest) -> Iterator[tuple[str, str, Want]]:
        for named in request.customers:
            for call in named.first_calls:
                need = call.amounts[METER]
                yield f"{call.leases}.0", self.limit.counter, Want(need, 0, need)
            for ask in named.asks:
                yield ask.lease, ask.counter, Want(ask.need, ask.demand_per_min, ask.typical or ask.need)

    def _lend(
        self, agent: str, lease: str, counter: str, want: Want, now_ms: int, recalled: dict[str, None]
    ) -> Grant | Denial | None:
        available = self.allowance - self.posted - self.outstanding
        wishes = self.wishes
        crowd = Crowd(len(wishes.since), wishes.demand, self.central > 0)
        slice_ = allocation.slice_of(available, want, crowd)
        if slice_ is not None:
            life = Life(slice_.amount, slice_.amount, 0, 0, 0, Status.OPEN, 0)
            self.leases[lease] = Held(agent, life, slice_.central, now_ms)
            self.central += slice_.central
            self.outstanding += slice_.amount
            self._count("central grants" if slice_.central else "grants")
            lent_ahead = self.outstanding - self.used_on_leases - slice_.amount
            if slice_.central and allocation.recalls_early(available, lent_ahead, slice_.amount):
                self._recall(agent, want.need, available, now_ms, recalled)
            return Grant(
                lease, CUSTOMER, counter, "", slice_.amount, LEASE_TTL_MS, 0, WINDOW_MS, WINDOW_MS - now_ms,
                Standing(self.allowance, 0), central=slice_.central,
            )  # fmt: skip
        if want.need == 0:
            self._count("nothing ahead")
            return self._denial(lease, counter, now_ms, exhausted=False, retry_in_ms=NOTHING_AHEAD_MS)
        if self.allowance - self.posted - self.used_on_leases < want.need:
            self._count("exhausted")
            if now_ms - self.recalled_at_ms >= DRY_MS:
                self.recalled_at_ms = now_ms
            return self._denial(lease, counter, now_ms, exhausted=True, retry_in_ms=DRY_MS)
        if not self._recall(agent, want.need, available, now_ms, recalled):
            self._count("slivers")
            return self._denial(lease, counter, now_ms, exhausted=False, retry_in_ms=DRY_MS)
        self._count("lent elsewhere")
        retry_in_ms = allocation.retry_in_ms(want.need, self.outstanding - self.used_on_leases, len(self.wishes.since))
        return self._denial(lease, counter, now_ms, exhausted=False, retry_in_ms=retry_in_ms)

    def _recall(self, agent: str, need: int, available: int, now_ms: int, recalled: dict[str, None]) -> bool:
        """As the product's round of recalls: whether it makes sense to wait for what comes back."""
        before_ms = self.recalled_at_ms
        if now_ms - before_ms < DEBOUNCE_MS:
            return True
        self._count("recall rounds")
        self.recalled_at_ms = now_ms
        on_their_way = now_ms - before_ms < ANSWERED_MS and any(
            one.life.status is Status.RECALLED for one in self.leases.values()
        )
        rests = self._rests(agent, need, before_ms, now_ms - LEASE_TTL_MS - CLOCK_MARGIN_MS)
        wanted = allocation.wanted_back(need, available, sum(rest.amount for rest in rests.values()))
        for name, keep in keep_after_recall(rests, wanted).items():
            one = self.leases[name]
            one.life = lease_life.recall(one.life, keep)
            recalled[one.agent] = None
        return bool(rests) or on_their_way

    def _rests(self, agent: str, need: int, before_ms: int, silent_ms: int) -> dict[str, Rest]:
        found = {
            name: one
            for name, one in self.leases.items()
            if one.agent != agent
            and one.life.rest
            and one.heard_at_ms >= (silent_ms if one.life.status is Status.OPEN else max(before_ms, silent_ms))
        }
        together: dict[str, int] = {}
        for one in found.values():
            together[one.agent] = together.get(one.agent, 0) + one.life.rest
        return {
            name: Rest(one.life.rest, -(-self.wishes.demand_of(one.agent) * one.life.rest // together[one.agent]))
            for name, one in found.items()
            if allocation.worth_asking_back(one.life.rest, need)
        }

    def _denial(self, lease: str, counter: str, now_ms: int, *, exhausted: bool, retry_in_ms: int) -> Denial:
        return Denial(
            lease, CUSTOMER, counter, "", exhausted, 1, retry_in_ms, 0, WINDOW_MS, WINDOW_MS - now_ms,
            Standing(self.allowance, 0),
        )  # fmt: skip

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
