"""What was lent by answers that were lost, and that nobody will ask for again: nothing of it was used.

An agent takes a lease only from the answer to the exchange under way, and names it in its syncs once it is in its
journal. Until then it repeats the ask under the same id. So a lease that it has never spoken of is nobody's where its
id is asked for still and not lent again now (the plan has changed meanwhile), and where its agent stops and asks no
more.
"""

from __future__ import annotations

from control_plane.core.incarnations import Standing as Speaker
from control_plane.operations.exchange import Exchange
from control_plane.operations.settle_reports import never_used
from control_plane.store import leases
from control_plane.store.leases import Row


def find_unheard(exchange: Exchange) -> list[Row]:
    """Load the leases of this start that it asks for, or stops without, and has never spoken of.

    A late copy of a sync says nothing of what its agent has heard since then. To be known as one, the number of each
    sync that asks is noted, whatever it is answered.
    """
    request = exchange.request
    asked_for = {ask.lease for named in request.customers for ask in named.asks}
    asked_for |= {call.leases for named in request.customers for call in named.first_calls}
    concerned = asked_for or request.stopping
    if not concerned or exchange.speaker is Speaker.LATE or request.serial <= exchange.this_start.serial:
        return []
    exchange.unit.note_serial(exchange.this_start, request.serial)
    reported = {report.lease for report in request.leases}
    unheard = [
        row
        for row in leases.unheard_in_start(exchange.connection, exchange.agent, request.journal, request.boot)
        if row.lease not in reported
        and (request.stopping or row.lease in asked_for or row.lease.rpartition(".")[0] in asked_for)
    ]
    exchange.rows |= {row.lease: row for row in unheard}
    return unheard


def take_back_unheard(exchange: Exchange, unheard: list[Row]) -> None:
    """Close those of them that are not lent again now. The wishes must have been answered."""
    granted = {grant.lease for grant in exchange.answer.grants}
    for name in [row.lease for row in unheard if row.lease not in granted]:
        never_used(exchange, exchange.rows[name])
        exchange.answer.recalls.pop(name, None)
