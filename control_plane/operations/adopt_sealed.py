"""Leases that the database does not know: their holder shows the grants, and those that we sealed are charged again.

A lease has one life: what is known, closed leases included, is never changed by a seal.
"""

from __future__ import annotations

from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.lease_life import Status
from control_plane.core.seals import holds
from control_plane.operations.exchange import LEASE_TTL_MS, Exchange
from control_plane.store import custody, leases
from protocol.leases import Grant, LeaseReport


def adopt_sealed(exchange: Exchange) -> None:
    """Find out what is to become of reported leases that are not this journal's here."""
    request, answer = exchange.request, exchange.answer
    unknown = dict.fromkeys(report.lease for report in request.leases if report.lease not in exchange.rows)
    for report in request.leases:
        row = exchange.rows.get(report.lease)
        if row is not None and row.journal != request.journal:
            answer.unknown_leases[report.lease] = None
            exchange.note("foreign_lease", f"{report.lease} belongs to another journal of this agent")
    if not unknown:
        return
    if exchange.speaker is Speaker.LATE or exchange.trust.key is None:
        answer.unknown_leases.update(unknown)
        return
    shown = {grant.lease: grant for grant in request.sealed if grant.lease in unknown}
    answer.show.update(dict.fromkeys(lease for lease in unknown if lease not in shown))
    if shown:
        _judge(exchange, shown)


def _judge(exchange: Exchange, shown: dict[str, Grant]) -> None:
    keys = custody.keys(exchange.connection)
    names = [(grant.customer, grant.lease) for grant in shown.values()]
    taken = {(row.customer, row.lease) for row in leases.by_name(exchange.connection, names)}
    for lease, grant in shown.items():
        ours = holds(keys, exchange.agent, exchange.request.journal, grant)
        if not ours or (grant.customer, lease) in taken:
            exchange.answer.unknown_leases[lease] = None
            exchange.note("bad_seal", f"{lease} was not granted here to this journal, or not so")
            continue
        detail = f"lease {lease} of {exchange.agent} was granted here, and is not known"
        exchange.doubt_database("restored_lease", detail, sealed=True)
        if grant.per_ms:  # a share of a rate is never revived: its holder asks for another
            exchange.answer.closed[lease] = None
            continue
        row = _row(exchange, grant)
        exchange.rows[lease] = row
        exchange.restored.append(row)
        exchange.touch(row.key, grant.window_end_ms)


def _row(exchange: Exchange, grant: Grant) -> leases.Row:
    """The lease as it was granted; what has become of it since, its report says next."""
    return leases.Row(
        customer=grant.customer,
        lease=grant.lease,
        counter=grant.counter,
        scope_value=grant.scope_value,
        window_start_ms=grant.window_start_ms,
        agent=exchange.agent,
        journal=exchange.request.journal,
        boot=exchange.request.boot,
        granted=grant.amount,
        cap=grant.amount,
        settled=0,
        in_flight=0,
        unreported=0,
        overage=grant.overage,
        central=grant.central,
        status=Status.OPEN.value,
        keep=0,
        ttl_ms=LEASE_TTL_MS,
        granted_at_ms=exchange.now_ms,
        renewed_at_ms=exchange.now_ms,
        closed_at_ms=None,
        journaled=True,
        finishing=grant.finishing,
    )


def note_shrinking(exchange: Exchange, row: leases.Row, report: LeaseReport) -> None:
    """Counters that shrink are kept at their maximum. An old message explains them; many of them are a sign of a disk
    that forgets."""
    if row.status == leases.CLOSED or exchange.speaker is Speaker.LATE or exchange.is_overtaken or report.closed:
        return
    if report.settled < row.settled or report.cap > row.cap:
        said = f"settled {report.settled} of {report.cap}, after {row.settled} of {row.cap}"
        exchange.note("counter_shrank", f"{row.lease}: {said}")
