"""The other policies: static split, fixed chunks, proportional share by polling, central checks, check-then-add."""

from __future__ import annotations

from collections.abc import Callable

from tests.comparison.callers import PATIENCE_MS, SLICE, Answer
from tests.comparison.clock import Clock
from tests.comparison.workload import Call, mean_cost

Done = Callable[[], None]


class Peer:
    """What they share: a clock, a round trip, and a count of requests that crossed the network."""

    slice: int | None = SLICE
    idle_a_minute = 0.0

    def __init__(self, clock: Clock, hosts: int, allowance: int, round_trip_ms: int) -> None:
        self.clock = clock
        self.hosts = hosts
        self.left = allowance
        self.up_ms = round_trip_ms // 2
        self.down_ms = round_trip_ms - self.up_ms
        self.messages = 0
        self.gone: set[int] = set()

    def kill(self, host: int) -> None:
        """This host is gone, with its disk."""
        self.gone.add(host)

    def stop(self, _host: int, done: Done) -> None:
        """Nothing lies on a host that could be given back."""
        done()

    def stranded(self, _host: int) -> int:
        """Nothing lies on hosts."""
        return 0


class StaticSplit(Peer):
    """Every host has the same part from the beginning, and nothing ever moves."""

    def __init__(self, clock: Clock, hosts: int, allowance: int, round_trip_ms: int) -> None:
        super().__init__(clock, hosts, allowance, round_trip_ms)
        self._free = [allowance // hosts] * hosts

    def reserve(self, call: Call, amount: int, answer: Answer) -> None:
        """Local, at once."""
        enough = self._free[call.host] >= amount
        if enough:
            self._free[call.host] -= amount
        answer(enough)

    def extend(self, call: Call, more: int, answer: Answer) -> None:
        """Local, at once."""
        self.reserve(call, more, answer)

    def settle(self, call: Call, held: int) -> None:
        """What was held and not used is free again."""
        self._free[call.host] += held - call.cost

    def stop(self, host: int, done: Done) -> None:
        """Its part is never given to others."""

    def stranded(self, host: int) -> int:
        """All of its part that it had not used."""
        return self._free[host]


class Central(Peer):
    """Every reservation is made in one place: a round trip before every call, slice and end of a call."""

    def reserve(self, _call: Call, amount: int, answer: Answer) -> None:
        """Ask the centre."""
        self.messages += 1
        self.clock.after(self.up_ms, self._decide, amount, answer)

    def extend(self, call: Call, more: int, answer: Answer) -> None:
        """Ask the centre."""
        self.reserve(call, more, answer)

    def settle(self, call: Call, held: int) -> None:
        """Tell the centre."""
        self.messages += 1
        self.clock.after(self.up_ms, self._return, held - call.cost)

    def _decide(self, amount: int, answer: Answer) -> None:
        enough = self.left >= amount
        if enough:
            self.left -= amount
        self.clock.after(self.down_ms, answer, enough)

    def _return(self, rest: int) -> None:
        self.left += rest


class CentralWorstCase(Central):
    """The same, but a call reserves all that it could ever use: its prompt and the most output that it may ask for."""

    slice = None


class CheckThenAdd(Central):
    """The centre is asked whether anything is left, and told afterwards what was used; nothing is held meanwhile."""

    slice = None

    def _decide(self, _amount: int, answer: Answer) -> None:
        self.clock.after(self.down_ms, answer, self.left > 0)

    def settle(self, call: Call, _held: int) -> None:
        """Add what was used."""
        self.messages += 1
        self.clock.after(self.up_ms, self._return, -call.cost)


class Holder:
    """What one host holds, and which of its calls wait for more (with the amount each needs, and until when)."""

    __slots__ = ("asking", "debited_at_ms", "due", "free", "has", "polled_at_ms", "rate", "since", "spent", "waiting")

    def __init__(self) -> None:
        self.free = 0
        self.spent = 0
        self.since = 0
        self.has = 0
        self.rate = 0.0
        self.asking = False
        self.due = False
        self.debited_at_ms = self.polled_at_ms = -(10**9)
        self.waiting: list[tuple[int, int, Answer]] = []


class Borrowing(Peer):
    """What chunks and shares have in common: hosts spend locally, and calls wait for what their host lacks."""

    def __init__(self, clock: Clock, hosts: int, allowance: int, round_trip_ms: int) -> None:
        super().__init__(clock, hosts, allowance, round_trip_ms)
        self.holders: dict[int, Holder] = {}

    def holder(self, host: int) -> Holder:
        """What this host holds."""
        found = self.holders.get(host)
        if found is None:
            found = self.holders[host] = Holder()
        return found

    def reserve(self, call: Call, amount: int, answer: Answer) -> None:
        """Local where there is enough, and nobody waits already."""
        holder = self.holder(call.host)
        if not holder.waiting and holder.free >= amount:
            self._take(holder, amount)
            answer(True)
            return
        holder.waiting.append((amount, self.clock.now_ms + PATIENCE_MS, answer))
        self._seek(call.host, holder)
        self.clock.after(PATIENCE_MS, self._lose_patience, holder)

    def extend(self, call: Call, more: int, answer: Answer) -> None:
        """As a reservation."""
        self.reserve(call, more, answer)

    def settle(self, call: Call, held: int) -> None:
        """What was held and not used is free again, here."""
        holder = self.holder(call.host)
        holder.free += held - call.cost
        holder.spent -= held - call.cost
        self._serve(holder)

    def stop(self, host: int, done: Done) -> None:
        """It gives back what is free, in one message."""
        self.messages += 1
        holder = self.holder(host)
        back, holder.free, holder.has = holder.free, 0, 0
        self.clock.after(self.up_ms, self._returned, back, done)

    def stranded(self, host: int) -> int:
        """What it held and had not used."""
        return self.holders[host].free if host in self.holders else 0

    def _returned(self, back: int, done: Done) -> None:
        self.left += back
        done()

    def _take(self, holder: Holder, amount: int) -> None:
        holder.free -= amount
        holder.spent += amount
        holder.since += amount
        holder.debited_at_ms = self.clock.now_ms

    def _serve(self, holder: Holder) -> None:
        while holder.waiting and holder.free >= holder.waiting[0][0]:
            amount, _, answer = holder.waiting.pop(0)
            self._take(holder, amount)
            answer(True)

    def _refuse(self, holder: Holder) -> None:
        waiting, holder.waiting = holder.waiting, []
        for _, _, answer in waiting:
            answer(False)

    def _lose_patience(self, holder: Holder) -> None:
        late = [one for one in holder.waiting if one[1] <= self.clock.now_ms]
        holder.waiting = [one for one in holder.waiting if one[1] > self.clock.now_ms]
        for _, _, answer in late:
            answer(False)

    def _seek(self, host: int, holder: Holder) -> None:
        raise NotImplementedError


class FixedChunks(Borrowing):
    """A host that runs out fetches a thousandth of the allowance, and gives back what it has not touched for long."""

    IDLE_MS = 60_000

    def __init__(self, clock: Clock, hosts: int, allowance: int, round_trip_ms: int) -> None:
        super().__init__(clock, hosts, allowance, round_trip_ms)
        self._chunk = allowance // 1_000

    def _seek(self, host: int, holder: Holder) -> None:
        if holder.asking or host in self.gone:
            return
        holder.asking = True
        self.messages += 1
        self.clock.after(self.up_ms, self._lend, host, holder, max(self._chunk, holder.waiting[0][0] - holder.free))

    def _lend(self, host: int, holder: Holder, amount: int) -> None:
        lent = amount if self.left >= amount else 0
        self.left -= lent
        self.clock.after(self.down_ms, self._lent, host, holder, lent)

    def _lent(self, host: int, holder: Holder, lent: int) -> None:
        holder.asking = False
        holder.free += lent
        self._serve(holder)
        if not lent:
            self._refuse(holder)
        elif holder.waiting:
            self._seek(host, holder)
        if not holder.due:
            holder.due = True
            self.clock.after(self.IDLE_MS, self._idle, host, holder)

    def _idle(self, host: int, holder: Holder) -> None:
        holder.due = False
        if host in self.gone or not holder.free:
            return
        rest_ms = holder.debited_at_ms + self.IDLE_MS - self.clock.now_ms
        if rest_ms <= 0:
            self.stop(host, _nobody)
        else:
            holder.due = True
            self.clock.after(rest_ms, self._idle, host, holder)


class ProportionalShare(Borrowing):
    """As in Doorman: hosts poll with what they want and get that or a proportional share; leases of the silent expire
    and are given to others."""

    POLL_MS = 16_000
    AGAIN_MS = 5_000
    LEASE_MS = 60_000
    WANTS_MIN = 8 * round(mean_cost())

    def __init__(self, clock: Clock, hosts: int, allowance: int, round_trip_ms: int) -> None:
        super().__init__(clock, hosts, allowance, round_trip_ms)
        self._wants: dict[int, tuple[int, int, int]] = {}

    def _seek(self, host: int, holder: Holder) -> None:
        pause_ms = holder.polled_at_ms + self.AGAIN_MS - self.clock.now_ms
        if pause_ms <= 0:
            self._poll(host, holder)
        elif not holder.asking:
            holder.asking = True
            self.clock.after(pause_ms, self._poll_if_short, host, holder)

    def _poll_if_short(self, host: int, holder: Holder) -> None:
        holder.asking = False
        if holder.waiting and self.clock.now_ms - holder.polled_at_ms >= self.AGAIN_MS:
            self._poll(host, holder)

    def _poll_in_time(self, host: int, holder: Holder) -> None:
        holder.due = False
        if self.clock.now_ms - holder.polled_at_ms >= self.POLL_MS:
            self._poll(host, holder)
        elif host not in self.gone:
            self._next(host, holder)

    def _next(self, host: int, holder: Holder) -> None:
        if not holder.due:
            holder.due = True
            self.clock.after(holder.polled_at_ms + self.POLL_MS - self.clock.now_ms, self._poll_in_time, host, holder)

    def _poll(self, host: int, holder: Holder) -> None:
        if host in self.gone:
            return
        elapsed_ms = min(self.clock.now_ms - holder.polled_at_ms, self.LEASE_MS)
        holder.polled_at_ms = self.clock.now_ms
        rate = holder.since / elapsed_ms
        holder.rate = rate if not holder.rate else (holder.rate + rate) / 2
        waiting = sum(one[0] for one in holder.waiting)
        wants = max(round(holder.rate * self.LEASE_MS), self.WANTS_MIN) + waiting
        spent, holder.spent, holder.since = holder.spent, 0, 0
        self.messages += 1
        self.clock.after(self.up_ms, self._share, host, holder, wants, spent)
        self._next(host, holder)

    def _share(self, host: int, holder: Holder, wants: int, spent: int) -> None:
        """The server: ``left`` is what nobody has reported as spent."""
        now_ms = self.clock.now_ms
        self.left -= spent
        for other in [name for name, one in self._wants.items() if now_ms - one[2] > self.LEASE_MS]:
            del self._wants[other]
        self._wants[host] = (wants, 0, now_ms)
        lent = sum(one[1] for one in self._wants.values())
        has = max(0, min(self._proportion(wants), self.left - lent))
        self._wants[host] = (wants, has, now_ms)
        self.clock.after(self.down_ms, self._shared, holder, has)

    def _proportion(self, wants: int) -> int:
        asked = [one[0] for one in self._wants.values()]
        equal = self.left // len(asked)
        if wants <= equal or sum(asked) <= self.left:
            return wants
        spare = sum(equal - one for one in asked if one < equal)
        lacking = sum(one - equal for one in asked if one > equal)
        return equal + (wants - equal) * spare // lacking

    def _shared(self, holder: Holder, has: int) -> None:
        holder.free = max(0, has - holder.spent)
        self._serve(holder)


def _nobody() -> None:
    """Nobody waits for this."""
