"""What to say to the control plane now. All of it is cumulative: said again, or said better, it does the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agent.core.books import Books, Customer
from agent.core.budget import Allowance, Purpose
from agent.core.demand import asked_demand, renewal_due
from protocol.admission import Priority
from protocol.events import EventBatch
from protocol.leases import LeaseReport
from protocol.uplink_messages import ASKS_MAX, LEASES_MAX, Ask, CustomerSync, FirstCall, SyncRequest

CUSTOMERS_A_SYNC_MAX = 500
"""Together with events, asks and leases at their largest, still within ``SYNC_BYTES_MAX``."""
LATELY_MS = 60_000
"""For how long a call that found no room is thought to be tried again."""


def compose_sync(
    books: Books, batches: Sequence[EventBatch], now_ms: int, *, snapshot: bool, stopping: bool
) -> SyncRequest:
    """Asks and first calls that wait, leases with news or due for renewal, and events.

    Asks under way are repeated under the same id until they are answered, so that a lost answer costs nothing.
    """
    asks: dict[str, list[Ask]] = {}
    for lease in () if stopping else _fair_share(books):
        allowance = books.asking[lease]
        asks.setdefault(allowance.customer, []).append(_ask(lease, allowance, now_ms))
        allowance.backlog, allowance.ask_sent = 0, True
    named = dict.fromkeys([*asks, *sorted(books.look_again), *(books.customers if snapshot else ())])
    customers = [
        _customer(books, name, asks.get(name, []), now_ms, stopping=stopping)
        for name in list(named)[:CUSTOMERS_A_SYNC_MAX]
    ]
    return SyncRequest(
        books.journal,
        books.boot,
        books.nonce,
        tuple(customers),
        tuple(_reports(books, now_ms, every=snapshot or books.report_all)),
        tuple(batches),
        snapshot,
        stopping,
        generation=books.generation,
    )


def _ask(lease: str, allowance: Allowance, now_ms: int) -> Ask:
    return Ask(
        lease,
        allowance.counter,
        allowance.scope_value,
        allowance.ask_need,
        asked_demand(allowance, now_ms),
        allowance.typical,
        ahead=allowance.purpose is Purpose.AHEAD,
        finishing=allowance.purpose is Purpose.FINISHING,
        priority=Priority.BATCH if allowance.ask_batch else Priority.INTERACTIVE,
    )


def _customer(books: Books, name: str, asks: list[Ask], now_ms: int, *, stopping: bool) -> CustomerSync:
    customer = books.customer(name)
    if customer.entitlement is not None and name in books.look_again and not asks and not stopping:
        _ask_at_once(books, customer, now_ms)
    return CustomerSync(name, customer.told_version, (customer.first_call,) if customer.first_call else (), tuple(asks))


def _ask_at_once(books: Books, customer: Customer, now_ms: int) -> None:
    """Its plan may have changed. For a call that found no room a moment ago ask right away, in the same exchange: else
    an upgrade would be in force here only one exchange later."""
    if customer.first_call is None and customer.unmet is not None:
        call, meters, priority, at_ms = customer.unmet
        customer.unmet = None
        if now_ms - at_ms < LATELY_MS:
            customer.first_call = FirstCall(
                books.new_lease_id(), call.feature, call.subject, meters, call.tags, priority, call.model
            )


def _fair_share(books: Books) -> list[str]:
    """Which asks go now: customer by customer in turn, those first for whom somebody waits; one customer with very many
    users must not make all others wait."""
    turns: dict[str, deque[str]] = {}
    for lease, allowance in books.asking.items():
        turns.setdefault(allowance.customer, deque()).append(lease)
    in_turn = deque(sorted(turns.items(), key=lambda turn: not books.customer(turn[0]).parked))
    chosen: list[str] = []
    while in_turn and len(chosen) < ASKS_MAX:
        name, leases = in_turn.popleft()
        chosen.append(leases.popleft())
        if leases:
            in_turn.append((name, leases))
    return chosen


def _reports(books: Books, now_ms: int, *, every: bool) -> list[LeaseReport]:
    leases = list(books.leases.values())
    if len(leases) > LEASES_MAX:  # all get their turn
        start, books.report_from = books.report_from % len(leases), books.report_from + LEASES_MAX
        leases = [*leases[start:], *leases[:start]]
    reports = []
    for lease in leases:
        if not lease.written or lease.disowned:
            continue  # not yet in the journal: nothing has been used of it; or nobody wants to hear of it
        report = lease.report()
        if every or report != lease.reported or renewal_due(lease, now_ms):
            reports.append(report)
        if len(reports) == LEASES_MAX:
            break
    return reports
