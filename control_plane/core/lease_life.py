"""The life of a lease as the control plane sees it: what its holder says moves it on, silence only marks it. Pure.

Only the holder gives rights back. Expiry, limbo and recall change what we expect, never what is charged; counters merge
by maximum and caps by minimum, so reports may come twice, late and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Status(StrEnum):
    """Where a lease is: lent, asked back, silent, perhaps lost, or done."""

    OPEN = "open"
    RECALLED = "recalled"
    EXPIRED = "expired"
    LIMBO = "limbo"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Life:
    """The numbers of one lease. While it is not closed ``cap`` is charged; once closed, ``cap`` is what was posted."""

    granted: int
    cap: int
    settled: int
    in_flight: int
    unreported: int
    status: Status
    keep: int

    @property
    def rest(self) -> int:
        """What the holder has neither used nor holds for calls in flight, as last heard."""
        return max(0, self.cap - self.settled - self.in_flight - self.unreported)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the holder says, with its own words' meaning (:class:`protocol.leases.LeaseReport`).

    ``stale``: said by an earlier boot than the one that holds the lease now; only what can never be taken back counts.
    """

    cap: int
    settled: int
    in_flight: int
    unreported: int
    closed: bool
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Movement:
    """What a step of a lease's life moves on its allowance: ``returned`` and ``released`` leave what is outstanding,
    ``posted`` is charged for good; ``cause`` says why, for the ledger."""

    returned: int = 0
    released: int = 0
    posted: int = 0
    cause: str = ""


STILL = Movement()


def hear(life: Life, heard: Heard) -> tuple[Life, Movement]:
    """The lease after a report, and what the report moves.

    What an older report calls unreported may be settled by now: it counts beside ``settled`` only as far as that report
    itself had both, else it would be charged twice.
    """
    settled = max(life.settled, heard.settled)
    unreported = max(0, heard.settled + heard.unreported - settled)
    if life.status is Status.CLOSED:
        return _late(life, settled, unreported if heard.closed and not heard.stale else None)
    if heard.stale:
        return replace(life, settled=settled), STILL
    if heard.closed:
        return close(replace(life, settled=settled, unreported=unreported), "settled")
    cap = min(life.cap, max(heard.cap, settled + unreported))
    news = replace(life, cap=cap, settled=settled, in_flight=heard.in_flight, unreported=unreported)
    answered = life.status is not Status.RECALLED or cap < life.cap or news.rest <= life.keep
    if answered:
        news = replace(news, status=Status.OPEN, keep=0)
    return news, Movement(returned=life.cap - cap, cause="returned") if cap < life.cap else STILL


def _late(life: Life, settled: int, unreported: int | None) -> tuple[Life, Movement]:
    """News of a closed lease: what was used beyond what was posted is posted too, whatever that does to the limit. What
    was charged as perhaps used, and is settled now, is no longer unreported.

    Args:
        unreported: ``None`` when the news say nothing of that.
    """
    more = max(0, min(settled + (unreported or 0), max(life.granted, settled)) - life.cap)
    cap = life.cap + more
    unreported = min(life.unreported if unreported is None else unreported, max(0, cap - settled))
    life = replace(life, settled=settled, unreported=unreported, cap=cap)
    return life, Movement(posted=more, cause="late") if more else STILL


def close(life: Life, cause: str) -> tuple[Life, Movement]:
    """Charge what was used, or may have been, and free the rest."""
    charge = min(life.granted, life.settled + life.unreported)
    done = replace(life, cap=charge, in_flight=0, status=Status.CLOSED, keep=0)
    return done, Movement(released=life.cap, posted=charge, cause=cause)


def write_off(life: Life, cause: str) -> tuple[Life, Movement]:
    """Close a lease whose holder stays silent beyond the end of its window: all of it counts as used."""
    done = replace(life, in_flight=0, status=Status.CLOSED, keep=0)
    return done, Movement(released=life.cap, posted=life.cap, cause=cause)


def reported(life: Life) -> int:
    """What its holder has said that it used, or may have: in flight, too, when nobody has heard how that ended."""
    return min(life.cap, life.settled + life.in_flight + life.unreported)


def close_at(life: Life, used: int, cause: str) -> tuple[Life, Movement]:
    """Close a lease openly, charged with what somebody says was used. A later word of its holder is the truth still."""
    done = replace(life, cap=used, in_flight=0, status=Status.CLOSED, keep=0)
    return done, Movement(released=life.cap, posted=used, cause=cause)


def recall(life: Life, keep: int) -> Life:
    """Ask for the rest of it, but for ``keep``. Its cap falls only when the holder says that it has lowered it."""
    keep = min(keep, life.keep) if life.status is Status.RECALLED else keep
    return replace(life, status=Status.RECALLED, keep=keep)
