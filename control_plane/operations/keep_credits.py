"""What time does to credits: grants that end are closed, rolled over and renewed; plans give theirs."""

from __future__ import annotations

from control_plane.core.credits import Category, rollover
from control_plane.core.entitlements import Facts, given
from control_plane.core.subscriptions import terms_at
from control_plane.operations.burn_credits import burn_credits, lost_account
from control_plane.store import credits
from control_plane.store.credits import GrantRow, Transfer
from control_plane.store.database import Connection
from protocol.windows import Calendar, WindowKind, window_at

DAY_MS = 86_400_000
BY_ITSELF = "time"


def keep_credits(connection: Connection, customer: str, facts: Facts, now_ms: int) -> bool:
    """Do what is due of a customer's credits; whether anything was. Doing it twice changes nothing."""
    terms = terms_at(facts.changes, now_ms)
    calendar = terms.calendar if terms else Calendar()
    done = _close_ended(connection, customer, calendar, now_ms)
    if terms is None or facts.archived or not terms.status.gives:
        return done
    for grant, source, amount in given(facts, terms):
        window = window_at(grant.every, now_ms, calendar)
        endless = grant.every is WindowKind.LIFETIME
        stem = f"plan.{grant.key}" if endless else f"plan.{grant.key}.{window.start_ms // 1000}"
        before = credits.issued(connection, customer, stem)
        # What was given stays; more of it in the same window is a further grant.
        missing = amount - sum(row.amount for row in before)
        if missing <= 0:
            continue
        row = GrantRow(
            customer=customer,
            grant=f"{stem}.{len(before) + 1}",
            meter=grant.meter,
            amount=missing,
            burned=0,
            forfeited=0,
            from_ms=now_ms,
            until_ms=None if endless else window.end_ms,
            priority=grant.priority,
            category=Category.INCLUDED.value,
            cost_micros=0,
            currency="",
            every="",
            rollover_min=grant.rollover_min,
            rollover_max=grant.rollover_max,
            rollover_days=grant.rollover_days,
            source=source,
            reason=f"comes with {source}",
            actor=BY_ITSELF,
            made_at_ms=now_ms,
            voided_at_ms=None,
            closed=False,
        )
        issue(connection, row, now_ms)
        done = True
    return done


def issue(connection: Connection, row: GrantRow, now_ms: int) -> None:
    """Make a grant, with its first movement."""
    credits.add(connection, row)
    account = credits.account_of(row.grant)
    move = Transfer(row.customer, row.meter, credits.ISSUED, account, row.amount, "issue", None, now_ms)
    credits.move(connection, [move])


def _close_ended(connection: Connection, customer: str, calendar: Calendar, now_ms: int) -> bool:
    """Grants that came again may have ended again since: until none is left."""
    closed = False
    while ended := [row for row in credits.open_grants(connection, [customer]) if _is_over(row, now_ms)]:
        for meter in sorted({row.meter for row in ended}):
            burn_credits(connection, customer, meter, (), now_ms)
        for row in ended:
            burned = credits.find(connection, customer, row.grant)
            assert burned is not None
            _close(connection, burned, calendar, now_ms)
        closed = True
    return closed


def _is_over(row: GrantRow, now_ms: int) -> bool:
    return row.until_ms is not None and row.until_ms <= now_ms


def _close(connection: Connection, row: GrantRow, calendar: Calendar, now_ms: int) -> None:
    assert row.until_ms is not None
    left = row.amount - row.burned
    rolled = 0 if row.voided_at_ms is not None else rollover(left, row.rollover_min, row.rollover_max)
    goes_on, more = min(left, rolled), max(0, rolled - left)
    account = credits.account_of(row.grant)
    lost = left - goes_on
    if lost:
        move = Transfer(row.customer, row.meter, account, lost_account(row), lost, "end", None, now_ms)
        credits.move(connection, [move])
    # What goes on is no longer this grant's: it can not be taken from it once more by use that is told of late.
    credits.change(connection, row._replace(forfeited=row.forfeited + lost, closed=True))
    if goes_on or more:
        _roll_over(connection, row, goes_on, more, calendar, now_ms)
    if row.every and row.voided_at_ms is None:
        _come_again(connection, row, calendar, now_ms)


def _roll_over(connection: Connection, row: GrantRow, goes_on: int, more: int, calendar: Calendar, now_ms: int) -> None:
    """``more``: what the least that rolls over is more than was left; it is issued."""
    assert row.until_ms is not None
    until_ms = row.until_ms + (row.rollover_days or 0) * DAY_MS
    if row.rollover_days is None:
        kind = WindowKind(row.every) if row.every else WindowKind.BILLING_PERIOD
        until_ms = window_at(kind, row.until_ms, calendar).end_ms
    rolled = row._replace(
        grant=f"{row.grant}.rollover",
        amount=goes_on + more,
        burned=0,
        forfeited=0,
        from_ms=row.until_ms,
        until_ms=until_ms,
        category=Category.ROLLOVER.value,
        every="",
        rollover_min=0,
        rollover_max=0,
        rollover_days=None,
        reason=f"rolled over from {row.grant}",
        actor=BY_ITSELF,
        made_at_ms=now_ms,
        closed=False,
    )
    credits.add(connection, rolled)
    account, onto = credits.account_of(row.grant), credits.account_of(rolled.grant)
    moves = [Transfer(row.customer, row.meter, account, onto, goes_on, "rollover", None, now_ms)]
    moves.append(Transfer(row.customer, row.meter, credits.ISSUED, onto, more, "rollover", None, now_ms))
    credits.move(connection, moves)


def _come_again(connection: Connection, row: GrantRow, calendar: Calendar, now_ms: int) -> None:
    assert row.until_ms is not None
    until_ms = window_at(WindowKind(row.every), row.until_ms, calendar).end_ms
    stem = row.grant.partition("~")[0]
    following = row._replace(
        grant=f"{stem}~{row.until_ms // 1000}",
        burned=0,
        forfeited=0,
        from_ms=row.until_ms,
        until_ms=until_ms,
        actor=BY_ITSELF,
        made_at_ms=now_ms,
        closed=False,
    )
    issue(connection, following, now_ms)
