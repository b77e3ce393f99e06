"""Reservations: what calls in flight hold, and what the ended ones said, so that a repeat changes nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from agent.core.leases import AllowanceKey, Lease
from protocol.events import Outcome, UsageSource
from protocol.local_messages import Call
from protocol.rates import NO_RATES, RateCard

ENDED_MAX = 20_000
"""How many ended calls are remembered here; what is forgotten, the ledger still knows by its id."""

# Made once or more for every call: structs, which are made several times faster than dataclasses, and are no work for
# the garbage collector (they are never part of a cycle).


class Line(msgspec.Struct, gc=False):
    """One limit that a call touches: its meter, whose counter, and the holds on leases that pay for it."""

    meter: str
    allowance: AllowanceKey
    holds: list[tuple[Lease, int]] = []


class Reservation(msgspec.Struct, gc=False):
    """What is held for one call in flight. It ends exactly once: by settle, release or expiry.

    Attributes:
        asked: the amounts as first asked for, by which a repeated ``reserve`` is recognised.
        amounts: what is held now, by meter, extensions and derived meters included.
        card: the rates that make the derived meters; those of the reserve hold for all that is said of the call later.
        expires_at_ms: on the monotonic clock.
        opened_at_ms: when it was reserved or last extended, on the same clock.
        journaled: its row is on disk or on its way there, so that its end must delete it.
    """

    id: str
    call: Call
    asked: dict[str, int]
    amounts: dict[str, int]
    lines: list[Line]
    expires_at_ms: int
    version: int
    opened_at_ms: int = 0
    journaled: bool = False
    card: RateCard = NO_RATES


class Said(msgspec.Struct, frozen=True, gc=False):
    """What a caller said of a call that ended, apart from whose call it was; ``amounts`` are meters, normalised."""

    amounts: dict[str, int]
    tokens: dict[str, int]
    usage_source: UsageSource
    outcome: Outcome
    model: str | None
    provider: str | None


class Ended(msgspec.Struct, gc=False):
    """How a call ended.

    Attributes:
        event: the usage event that says so; ``None`` for a release.
        card: the rates that made the derived meters, and make those of corrections.
        counted: what counts by now, derived meters included.
        said: what counts by now: the last word. earlier: words before it, with the events that they made.
        last_event: the event that the last word made; ``event`` itself until there is a correction.
        durable: whether all of it is on disk.
    """

    event: str | None
    said: Said | None
    call: Call
    last_event: str | None = None
    earlier: tuple[tuple[Said, str], ...] = ()
    durable: bool = False
    card: RateCard = NO_RATES
    counted: dict[str, int] = {}

    def event_of(self, said: Said) -> str | None:
        """The event that these words made, if they were said before."""
        if said == self.said:
            return self.last_event
        return next((event for words, event in self.earlier if words == said), None)


class EndedBook:
    """The last calls that ended, oldest forgotten first.

    Reservations go by their id; recorded events by ``customer/event`` (no id holds a slash).
    """

    def __init__(self, size_max: int = ENDED_MAX) -> None:
        self._book: OrderedDict[str, Ended] = OrderedDict()
        self._size_max = size_max

    def get(self, key: str) -> Ended | None:
        """How this one ended, if it is still remembered."""
        return self._book.get(key)

    def put(self, key: str, ended: Ended) -> None:
        """Remember it."""
        self._book[key] = ended
        if len(self._book) > self._size_max:
            self._book.popitem(last=False)


class ReservationBook:
    """Calls in flight by id, and by the second in which they run out."""

    def __init__(self) -> None:
        self._open: dict[str, Reservation] = {}
        self._by_second: dict[int, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(self._open.values())

    def get(self, reservation: str) -> Reservation | None:
        """The call in flight under this id."""
        return self._open.get(reservation)

    def put(self, reservation: Reservation) -> None:
        """Enter it."""
        self._open[reservation.id] = reservation
        self._by_second.setdefault(reservation.expires_at_ms // 1_000, {})[reservation.id] = None

    def pop(self, reservation: str) -> Reservation | None:
        """Take it out: it ends."""
        found = self._open.pop(reservation, None)
        if found is not None:
            second = found.expires_at_ms // 1_000
            same_second = self._by_second[second]
            same_second.pop(reservation, None)
            if not same_second:
                del self._by_second[second]
        return found

    def prolong(self, reservation: Reservation, expires_at_ms: int) -> None:
        """It runs out later."""
        self.pop(reservation.id)
        reservation.expires_at_ms = max(reservation.expires_at_ms, expires_at_ms)
        self.put(reservation)

    def expired(self, now_ms: int) -> list[Reservation]:
        """Those whose life is over."""
        over = [second for second in self._by_second if second * 1_000 <= now_ms]
        return [
            self._open[found]
            for second in over
            for found in self._by_second[second]
            if self._open[found].expires_at_ms <= now_ms
        ]
