"""Calls in flight, as their callers see them: what they hold, what they will really use, and how they will end."""

from __future__ import annotations

from enum import StrEnum

from agent.core.reservations import Reservation
from protocol.local_messages import Call
from tests.simulation.contracts import TOKENS
from tests.simulation.provider import Provider


class Course(StrEnum):
    """How a call will go."""

    SETTLE = "settles"
    STREAM = "streams, in slices"
    RELEASE = "never happens"
    DIE = "caller dies"
    LATE = "settles after its life"
    OVER = "uses more than it held"
    ELSEWHERE = "settles on another host"
    REWORD = "settles, then says otherwise"


class InFlight:
    """One call that was allowed.

    Attributes:
        admitted: what the provider may take for it, by the lease that pays.
        really: tokens that it uses in the end. says: what it will say it used, in the order in which it says it.
    """

    __slots__ = ("admitted", "ask", "attempts", "course", "held", "id", "really", "says", "slices")

    def __init__(self, name: str, ask: Call, held: int, really: int, course: Course) -> None:
        self.id = name
        self.ask = ask
        self.held = held
        self.really = really
        self.course = course
        self.says = [really]
        self.slices = 0
        self.attempts = 0
        self.admitted: dict[str, int] = {}

    def admit(self, provider: Provider, reservation: Reservation) -> None:
        """The call goes to the provider: what it uses is the truth from now on, paid by the leases that hold it."""
        really = {TOKENS: self.really, "requests": 0 if self.course is Course.RELEASE else 1}
        taken: dict[str, int] = {}
        for line in reservation.lines:
            left = really[line.meter]
            for lease, hold in line.holds:
                part = min(left, hold)
                left -= part
                if part:
                    taken[lease.id] = taken.get(lease.id, 0) + part
                    if lease.id not in provider.lease_key:
                        provider.lease_key[lease.id] = (*lease.key, lease.window_start_ms)
        before = self.admitted
        for lease_id, amount in taken.items():
            more = amount - before.get(lease_id, 0)
            if more:
                provider.use(lease_id, provider.lease_key[lease_id], more)
        self.admitted = taken
