"""What this agent may spend of one counter: the leases that it holds of it, and what it was last told. Pure.

Quotas are here; rates and what is held at the same time follow the same interface, in files of their own.
"""

from __future__ import annotations

from enum import Enum, auto

from agent.core.leases import AllowanceKey, Lease
from protocol.instants import INSTANT_MS_MAX, rfc3339
from protocol.leases import Denial, Standing
from protocol.units import REQUESTS

DEMAND_HALF_LIFE_MS = 15_000
DEMAND_STEP_MS = 1_000


class Purpose(Enum):
    """What leases of a counter are for: calls that begin now, those that go on beyond the limit, the next window's."""

    NOW = auto()
    FINISHING = auto()
    AHEAD = auto()


class Allowance:
    """One counter of one customer as this agent sees it: the leases it holds, and what it was last told.

    Attributes:
        ask: the id that the lease asked for will have, while an ask is outstanding; ``ask_need`` its least amount.
        backlog: what waiting calls lacked since the last ask; they make the next ask larger.
        awaited: what calls wait for that is leased but not yet covered by the journal.
        free_now, used_now, lapsed_now: what the last look showed: what may still be taken, what is used in this window
            as far as is known here, and whether a lease beyond its term is among those that are drained.
        granted_last: size of the newest lease, the measure of when to ask ahead.
        ask_batch, denied_batch: all who wait for the ask, or waited for the one that was refused, are of low priority.
        ask_sent: the ask has left; until then it may still ask for less.
        purpose: what its leases are for. ``finishing`` and ``ahead`` hold those that are for something else than
            calls that begin now, with asks and refusals of their own.
        asks_early: more is asked for when little is left, not only when calls are refused.
        resets_at: when its window ends, for people; ``None`` when it never does.
    """

    __slots__ = (
        "ahead", "ask", "ask_batch", "ask_need", "ask_sent", "awaited", "backlog", "counter", "customer",
        "demand_per_min", "denial", "denied_batch", "denied_until_ms", "finishing", "free_now", "granted_last", "key",
        "lapsed_now", "last_debit_ms", "leases", "purpose", "reserved_since", "resets_at", "scope_value", "since_ms",
        "standing", "typical", "used_now", "window_end_ms", "window_ends_at_ms",
    )  # fmt: skip
    asks_early = True

    def __init__(self, key: AllowanceKey, now_ms: int, purpose: Purpose = Purpose.NOW) -> None:
        self.key = key
        self.purpose = purpose
        self.finishing: Allowance | None = None
        self.ahead: Allowance | None = None
        self.customer, self.counter, self.scope_value = key
        self.leases: list[Lease] = []
        self.ask: str | None = None
        self.ask_need = 0
        self.ask_batch = self.ask_sent = self.denied_batch = False
        self.backlog = 0
        self.awaited = 0
        self.granted_last = 0
        self.free_now = self.used_now = 0
        self.lapsed_now = False
        self.standing: Standing | None = None
        self.denial: Denial | None = None
        self.denied_until_ms = 0
        self.typical = 0
        self.demand_per_min = 0
        self.reserved_since = 0
        self.since_ms = now_ms
        self.last_debit_ms = now_ms
        self.window_end_ms: int | None = None
        self.window_ends_at_ms = 0
        self.resets_at: str | None = None

    def beside(self, purpose: Purpose, now_ms: int) -> Allowance:
        """The leases of this counter that are for something else; made when it is not there."""
        if purpose is Purpose.NOW:
            return self
        found = self.finishing if purpose is Purpose.FINISHING else self.ahead
        if found is None:
            found = Allowance(self.key, now_ms, purpose)
            if purpose is Purpose.FINISHING:
                self.finishing = found
            else:
                self.ahead = found
        found.typical, found.demand_per_min = self.typical, self.demand_per_min
        found.reserved_since, found.since_ms = self.reserved_since, self.since_ms
        return found

    def parts(self) -> tuple[Allowance, ...]:
        """Itself, and those beside it that are there."""
        return tuple(part for part in (self, self.finishing, self.ahead) if part is not None)

    def take_in(self, lease: Lease) -> None:
        """A lease has been lent."""
        self.leases.append(lease)
        self.granted_last = lease.cap

    def take_out(self, lease: Lease) -> None:
        """A lease has gone home."""
        self.leases.remove(lease)

    def need_of_all(self, need: int) -> int:
        """What an ask that has not left yet asks for once another call waits for it: the least that helps anybody, so
        that all of them rest if that is refused."""
        return min(self.ask_need or need, need or self.ask_need)

    def rests_for(self, need: int) -> bool:
        """Whether a refusal a moment ago was for so little. That nothing is lent ahead of need says nothing of what is
        needed."""
        return need == 0 or 0 < self.ask_need <= need

    def rest(self) -> None:
        """An ask was passed over in silence: whatever is needed rests, if something was needed."""
        self.ask_need = min(1, self.ask_need)

    def begin_window(self, now_ms: int) -> list[Lease]:
        """Take over the leases that were granted ahead and whose window has begun."""
        if self.ahead is None:
            return []
        begun = [lease for lease in self.ahead.leases if lease.starts_at_ms <= now_ms]
        for lease in begun:
            self.ahead.take_out(lease)
            lease.begun = True
            self.take_in(lease)
        if begun:
            if self.ahead.standing is not None and self.ahead.window_end_ms == begun[-1].window_end_ms:
                self.stand(self.ahead.standing, begun[-1].window_end_ms, begun[-1].window_ends_at_ms)
            self.forget_denial()
            self.last_debit_ms = now_ms
        return begun

    def live(self, now_ms: int, *, drain: bool) -> list[Lease]:
        """Leases that may be spent: their window lasts, they are not being returned, and their term lasts (or the
        limit says to drain them all the same)."""
        return [
            lease
            for lease in self.leases
            if lease.window_ends_at_ms > now_ms and not lease.closing and (drain or lease.expires_at_ms > now_ms)
        ]

    def look(self, now_ms: int, *, drain: bool) -> int:
        """How much may be taken now without touching the disk; what else one look shows is noted for this moment.

        One loop over the leases, written out: it runs for every limit of every call.
        """
        usable = free = 0
        used = self.standing.elsewhere if self.standing is not None and self.window_ends_at_ms > now_ms else 0
        lapsed = False
        for lease in self.leases:
            if lease.window_ends_at_ms <= now_ms:
                continue
            mine = lease.settled + lease.held + lease.orphan
            used += mine
            in_term = lease.expires_at_ms > now_ms
            if not lease.closing and (drain or in_term):
                usable += lease.watermark - mine - lease.freeing
                free += lease.cap - mine
                lapsed = lapsed or not in_term
        self.free_now, self.used_now, self.lapsed_now = free, used, lapsed
        return usable

    def free(self, now_ms: int, *, drain: bool) -> int:
        """How much may be taken once the journal's watermarks have been raised."""
        self.look(now_ms, drain=drain)
        return self.free_now

    def used(self, now_ms: int) -> int:
        """What is used in the present window, as far as is known here."""
        self.look(now_ms, drain=True)
        return self.used_now

    def take(self, amount: int, now_ms: int, *, drain: bool) -> list[tuple[Lease, int]]:
        """Hold ``amount``, or as much of it as is usable, on the leases that were granted first.

        What the last look has noted stays true.
        """
        holds: list[tuple[Lease, int]] = []
        for lease in self.leases:
            if lease.window_ends_at_ms <= now_ms or lease.closing or not (drain or lease.expires_at_ms > now_ms):
                continue
            usable = lease.watermark - lease.settled - lease.held - lease.orphan - lease.freeing
            part = min(amount, usable)
            if part > 0:
                lease.held += part
                holds.append((lease, part))
                amount -= part
                self.free_now -= part
                self.used_now += part
            if amount == 0:
                break
        self.last_debit_ms = now_ms
        return holds

    def charge(self, amount: int, now_ms: int) -> list[tuple[Lease, int, bool]]:
        """Settle ``amount`` that nobody had reserved, as far as there is room; what a crash orphaned goes first (and is
        marked so: it may have been another call's).

        What finds no room is charged by the control plane directly. The event that says so is journaled with it.
        """
        charges: list[tuple[Lease, int, bool]] = []
        for lease in self.leases:
            if lease.orphan and amount and lease.window_ends_at_ms > now_ms:
                part = min(amount, lease.orphan)
                lease.orphan -= part
                lease.settled += part
                charges.append((lease, part, True))
                amount -= part
        for lease in self.live(now_ms, drain=True):
            part = min(amount, lease.free)
            if part > 0:
                lease.settled += part
                lease.watermark = max(lease.watermark, lease.used)
                charges.append((lease, part, False))
                amount -= part
        self.last_debit_ms = now_ms
        return charges

    def hope(self, now_ms: int, *, drain: bool) -> int:
        """How much of what calls in flight hold here will come back, by what calls before them did not use.

        Of the very first calls, all of it may, unless it is the calls themselves that are counted.
        """
        live = self.live(now_ms, drain=drain)
        held = sum(lease.held for lease in live)
        given_back = sum(lease.given_back for lease in live)
        ended = given_back + sum(lease.settled for lease in live)
        if not ended:
            return 0 if self.counter.split("/")[1] == REQUESTS else held
        return held * given_back // ended

    def watermark_step(self) -> int:
        """How far the journal runs ahead of use: a second of demand, and a few calls. A crash charges at most this."""
        return max(1, self.demand_per_min // 60, 4 * self.typical, self.awaited)

    def note_demand(self, amount: int, now_ms: int) -> None:
        """Keep an average of what is reserved a minute, with a half-life of 15 seconds, and of what one call takes.

        The first second of a demand that was nothing before counts in full: a host that becomes busy must not live
        from one small lease to the next.
        """
        self.reserved_since += amount
        self.typical = amount if not self.typical else (7 * self.typical + amount + 7) // 8
        elapsed = now_ms - self.since_ms
        if elapsed >= DEMAND_STEP_MS:
            rate = self.reserved_since * 60_000 // elapsed
            weight = min(elapsed, DEMAND_HALF_LIFE_MS) if self.demand_per_min else DEMAND_HALF_LIFE_MS
            self.demand_per_min = (
                self.demand_per_min * (DEMAND_HALF_LIFE_MS - weight) + rate * weight
            ) // DEMAND_HALF_LIFE_MS
            self.reserved_since = 0
            self.since_ms = now_ms

    def deny(self, denial: Denial, now_ms: int, asked_at_ms: int, *, batch: bool) -> None:
        """Remember a refusal for a while, so that a dry allowance does not cause a storm of asks.

        Args:
            batch: all who asked are of low priority; it says nothing to the others.
        """
        self.denial = denial
        self.denied_batch = batch
        self.denied_until_ms = now_ms + max(50, denial.retry_in_ms)
        self.stand(denial.standing, denial.window_end_ms, asked_at_ms + denial.window_left_ms)

    def forget_denial(self) -> None:
        """Something came back, or the plan changed: asking makes sense again."""
        for part in self.parts():
            part.denial = None
            part.denied_until_ms = 0

    def stand(self, standing: Standing, window_end_ms: int, window_ends_at_ms: int) -> None:
        """Take note of how the whole allowance stands."""
        self.standing = standing
        if window_end_ms != self.window_end_ms:
            self.window_end_ms = window_end_ms
            self.resets_at = rfc3339(window_end_ms) if window_end_ms < INSTANT_MS_MAX else None
        self.window_ends_at_ms = window_ends_at_ms
