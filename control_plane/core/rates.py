"""Rates lent out as shares: who gets how much, and what is saved up of the part that nobody holds. Pure, in integers.

Every holder admits at its own share with a token bucket of its own; what is not lent fills a central bucket. Shares
never sum to more than the rate, nor their bursts to more than the burst, and what a share brings along is taken from
the central bucket; so that in every span of time all hosts together admit at most the burst and the rate times the
span: the level of all buckets together only grows at the rate, and never passes the burst.

A share is kept by renewing it, and freed by the clock when its holder is silent: a bucket that nobody may use any
longer admits nothing. That is legal for rates alone; a quota's lease is never freed by a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.leases import burst_left


@dataclass(frozen=True, slots=True)
class Share:
    """So much of a rate: ``amount`` a period, of which ``burst`` may be saved up."""

    amount: int
    burst: int


NO_SHARE = Share(0, 0)


@dataclass(frozen=True, slots=True)
class Pool:
    """A rate, and the central bucket of what is not lent of it.

    Attributes:
        amount: what all hosts together may use in one period; burst: how much at once.
        period_ms: the period.
        lent: the sum of all shares.
        level: what is in the central bucket, in whole units, up to the instant ``at_ms``.
    """

    amount: int
    burst: int
    period_ms: int
    lent: Share
    level: int
    at_ms: int

    @property
    def free(self) -> Share:
        """What may be lent; negative parts after the rate was lowered."""
        return Share(self.amount - self.lent.amount, self.burst - self.lent.burst)


def new_pool(amount: int, burst: int, period_ms: int, now_ms: int) -> Pool:
    """A rate that nobody has used yet: all of the burst is there."""
    return Pool(amount, burst, period_ms, NO_SHARE, burst, now_ms)


def fill(pool: Pool, now_ms: int) -> Pool:
    """The pool now. A clock that was set back fills nothing until it has caught up."""
    if now_ms <= pool.at_ms:
        return pool
    rate, most = max(0, pool.free.amount), max(0, pool.free.burst)
    gained, rest = divmod((now_ms - pool.at_ms) * rate, pool.period_ms)
    if rate == 0 or pool.level + gained >= most:
        return replace(pool, level=min(pool.level + gained, most), at_ms=now_ms)
    # A unit that has begun to grow goes on growing: the bucket is as of a moment ago, never later than is true.
    return replace(pool, level=pool.level + gained, at_ms=now_ms - rest // rate)


def govern(pool: Pool, amount: int, burst: int, now_ms: int) -> Pool:
    """The pool under a plan's present rate. Until now it filled at what was there before."""
    if (amount, burst) == (pool.amount, pool.burst):
        return fill(pool, now_ms)
    return _changed(pool, now_ms, amount=amount, burst=burst)


def lend(pool: Pool, share: Share, now_ms: int) -> tuple[Pool, int]:
    """The pool after lending a share, and what is in the share's bucket to begin with."""
    filled = fill(pool, now_ms)
    level = min(max(0, filled.level), share.burst)
    lent = Share(pool.lent.amount + share.amount, pool.lent.burst + share.burst)
    return _changed(replace(filled, level=filled.level - level), now_ms, lent=lent), level


def take_back(pool: Pool, share: Share, level: int, now_ms: int) -> Pool:
    """The pool after a share, or a part of one, came back.

    Args:
        level: what its holder says was saved up in it; counted up to the burst that comes back with it.
    """
    lent = Share(pool.lent.amount - share.amount, pool.lent.burst - share.burst)
    changed = _changed(pool, now_ms, lent=lent)
    return replace(changed, level=min(changed.level + min(level, share.burst), max(0, changed.free.burst)))


def _changed(
    pool: Pool, now_ms: int, *, amount: int | None = None, burst: int | None = None, lent: Share | None = None
) -> Pool:
    """Fill at the rate so far; the unit that is growing goes on at the new one, from where it is."""
    filled = fill(pool, now_ms)
    changed = replace(
        filled,
        amount=filled.amount if amount is None else amount,
        burst=filled.burst if burst is None else burst,
        lent=filled.lent if lent is None else lent,
    )
    rate = max(0, changed.free.amount)
    grown = max(0, now_ms - filled.at_ms) * max(0, filled.free.amount)  # in units times the period
    at_ms = max(filled.at_ms, now_ms - grown // rate) if rate and now_ms > filled.at_ms else max(filled.at_ms, now_ms)
    return replace(changed, level=min(changed.level, max(0, changed.free.burst)), at_ms=at_ms)


def fair_shares(amount: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Who of a crowd should have how much of a rate: everybody what it wants if that fits, else the small wishes are
    met and the large ones get the same (max-min); what is left over is spread evenly.

    Args:
        wanted: by agent, a period; at least one agent.
    """
    fair: dict[str, int] = {}
    left = amount
    waiting = sorted(wanted.items(), key=lambda item: (item[1], item[0]))
    for at, (agent, wish) in enumerate(waiting):
        fair[agent] = min(wish, left // (len(waiting) - at))
        left -= fair[agent]
    for at, (agent, _) in enumerate(reversed(waiting)):
        more = -(-left // (len(waiting) - at))
        fair[agent] += more
        left -= more
    return fair


@dataclass(frozen=True, slots=True)
class Offer:
    """What an asker gets now, and what it should have beyond that, to be asked back from others."""

    share: Share | None
    lacking: Share


def offer(pool: Pool, mine: Share, fair: int, need: int) -> Offer:
    """The share to lend to one who asks.

    Args:
        mine: what it holds already.
        fair: what it should have in all (:func:`fair_shares`).
        need: what its largest waiting call takes: its bursts together must hold as much, or that call never fits.
    """
    burst_short = max(0, need - mine.burst)
    for_need = -(-pool.amount * need // pool.burst) if burst_short and pool.burst else 0
    amount = max(0, min(max(fair, for_need), pool.amount) - mine.amount)
    if amount == 0 and burst_short == 0:
        return Offer(None, NO_SHARE)
    wanted = Share(max(amount, 1), max(burst_short, _burst_of(pool, amount), 1))
    free = pool.free
    given = Share(min(wanted.amount, free.amount), 0)
    given = Share(given.amount, min(max(_burst_of(pool, given.amount), burst_short, 1), free.burst))
    if given.amount < 1 or given.burst < 1:
        return Offer(None, wanted)
    lacking = Share(wanted.amount - given.amount, max(0, burst_short - given.burst))
    return Offer(given, lacking if 2 * given.amount < wanted.amount or lacking.burst else NO_SHARE)


def _burst_of(pool: Pool, amount: int) -> int:
    return pool.burst * amount // pool.amount if pool.amount else 0


def keep_after_recall(held: Mapping[str, Share], fair: Mapping[str, int], lacking: Share) -> dict[str, int]:
    """How much of its share each other holder may keep, so that what is lacking comes back; those not named keep all.

    Holders above their fair share give down to it; when that does not bring enough burst for a call that would else
    never fit, all give in proportion.

    Args:
        held: by agent, without the one who asks.
    """
    keep = {
        agent: max(fair.get(agent, 0), 1) for agent, share in held.items() if share.amount > max(fair.get(agent, 0), 1)
    }
    burst = sum(
        share.burst - burst_left(share.amount, share.burst, keep[agent])
        for agent, share in held.items()
        if agent in keep
    )
    if burst < lacking.burst:
        total = sum(share.burst for share in held.values())
        rest = max(0, total - lacking.burst)
        for agent, share in held.items():
            part = share.amount * rest // total if total else 0
            if part < min(keep.get(agent, share.amount), share.amount):
                keep[agent] = part
    return keep
