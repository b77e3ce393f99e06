"""What the control plane answered: entitlements, grants, denials, renewals, recalls, and what may be forgotten."""

from __future__ import annotations

from agent.core.books import UNKNOWN_MS, Books
from agent.core.budget import Allowance, Purpose
from agent.core.kinds import new_lease
from agent.core.leases import Lease
from agent.operations.admit import seek_lease
from agent.operations.park import try_again
from protocol.admission import Priority
from protocol.entitlements import Entitlement, InFlight
from protocol.leases import Denial, Grant, Standing
from protocol.uplink_messages import FirstCall, SyncReply, SyncRequest

PASSED_OVER_MS = 1_000
"""How long an ask rests that the control plane neither granted nor denied."""


def adopt_sync(books: Books, request: SyncRequest, reply: SyncReply, asked_at_ms: int, now_ms: int) -> None:
    """Take the answer in, then try again whoever waits for it.

    Args:
        request: what was said; its reports count as heard.
        asked_at_ms: when the request left. All durations in the answer count from then.
    """
    touched: set[str] = {named.customer for named in request.customers}
    books.confirmed_at_ms = asked_at_ms
    books.round_trip_ms = max(now_ms - asked_at_ms, books.round_trip_ms * 7 // 8)
    for report in request.leases:
        if report.lease in books.leases:
            books.leases[report.lease].reported = report
    for entitlement in reply.entitlements:
        customer = books.customer(entitlement.customer)
        customer.told_version = max(customer.told_version, entitlement.version)
        if adopt_entitlement(books, entitlement, asked_at_ms):
            touched.add(entitlement.customer)
    for name in reply.unknown_customers:
        _unknown(books, name, now_ms)
    for grant in reply.grants:
        _granted(books, grant, asked_at_ms, now_ms)
        touched.add(grant.customer)
    calls = {call.leases: call for named in request.customers for call in named.first_calls}
    for denial in reply.denials:
        _denied(books, denial, calls.get(denial.lease.rpartition(".")[0]), asked_at_ms, now_ms)
        touched.add(denial.customer)
    for named in request.customers:
        books.customer(named.customer).first_call = None
        for ask in named.asks:
            _not_answered(books, ask.lease, now_ms)
    _leases(books, reply, asked_at_ms, now_ms)
    for mark in reply.high_water:
        books.pending.high_water[mark.boot] = mark.seq  # it falls when a restored database asks for events again
    books.counters.event_problems += len(reply.event_problems)
    if not books.pending.empty:
        books.pending.urgent = books.pending.urgent or bool(reply.grants or reply.recalls)
        books.wake_writer()
    try_again(books, touched)


def adopt_entitlement(books: Books, entitlement: Entitlement, since_ms: int) -> bool:
    """What a customer may use from now on, unless something newer is known; its durations count from ``since_ms``."""
    customer = books.customer(entitlement.customer)
    if customer.entitlement is not None and entitlement.version < customer.entitlement.version:
        return False
    customer.entitle(entitlement, since_ms)
    books.pending.entitlements[entitlement.customer] = entitlement
    return True


def _unknown(books: Books, name: str, now_ms: int) -> None:
    customer = books.customer(name)
    if customer.entitlement is None:
        customer.unknown_until_ms = now_ms + UNKNOWN_MS


def _granted(books: Books, grant: Grant, asked_at_ms: int, now_ms: int) -> None:
    _answered(books, grant.lease)
    counter = books.allowance((grant.customer, grant.counter, grant.scope_value), now_ms)
    purpose = Purpose.FINISHING if grant.finishing else Purpose.AHEAD if grant.starts_in_ms else Purpose.NOW
    allowance = counter.beside(purpose, now_ms)
    allowance.forget_denial()
    allowance.stand(grant.standing, grant.window_end_ms, asked_at_ms + grant.window_left_ms)
    if grant.lease in books.leases:
        return  # the answer to a repeated ask: the lease is here already
    lease = new_lease(grant, asked_at_ms, now_ms)
    books.leases[lease.id] = lease
    allowance.take_in(lease)
    allowance.last_debit_ms = now_ms
    books.pending.touch(lease)
    books.waiting_for_disk.add(grant.customer)


def _denied(books: Books, denial: Denial, call: FirstCall | None, asked_at_ms: int, now_ms: int) -> None:
    """``call``: the first call that asked, if one did."""
    asked = _answered(books, denial.lease)
    allowance = asked or books.allowance((denial.customer, denial.counter, denial.scope_value), now_ms)
    batch = allowance.ask_batch if call is None else call.priority is Priority.BATCH
    allowance.deny(denial, now_ms, asked_at_ms, batch=batch)
    if allowance.purpose is Purpose.NOW and denial.exhausted:
        _seek_to_finish(books, allowance, now_ms)


def _seek_to_finish(books: Books, allowance: Allowance, now_ms: int) -> None:
    """The limit is reached: where calls in flight may go on beyond it, have their next slice at hand."""
    entitlement = books.customer(allowance.customer).entitlement
    if entitlement is None or not any(lease.held for lease in allowance.leases):
        return
    for limit in entitlement.limits:
        if limit.counter == allowance.counter and limit.in_flight is InFlight.FINISH:
            finishing = allowance.beside(Purpose.FINISHING, now_ms)
            if not finishing.leases:
                seek_lease(books, finishing, max(1, min(allowance.typical, limit.overage_max)), now_ms)


def _not_answered(books: Books, lease: str, now_ms: int) -> None:
    """An ask that the reply passes over rests a while: else one exchange would follow the other without end."""
    allowance = _answered(books, lease)
    if allowance is not None:
        allowance.denied_until_ms = max(allowance.denied_until_ms, now_ms + PASSED_OVER_MS)
        allowance.rest()
        allowance.denied_batch = False


def _answered(books: Books, lease: str) -> Allowance | None:
    """Whose ask this was, if it was one."""
    allowance = books.asking.pop(lease, None)
    if allowance is not None:
        allowance.ask = None
    return allowance


def _leases(books: Books, reply: SyncReply, asked_at_ms: int, now_ms: int) -> None:
    for renewal in reply.renewed:
        lease = books.leases.get(renewal.lease)
        if lease is not None:
            lease.renew(renewal.ttl_ms, asked_at_ms)
            _stand(books, lease, renewal.standing)
    for recall in reply.recalls:
        lease = books.leases.get(recall.lease)
        if lease is not None:
            if recall.keep == 0 and lease.held == 0 and lease.orphan == 0:
                lease.give_up(now_ms)
            else:
                lease.lower(recall.keep)
            books.pending.touch(lease)
    told = {(grant.customer, grant.counter, grant.scope_value) for grant in reply.grants}
    told |= {(denial.customer, denial.counter, denial.scope_value) for denial in reply.denials}
    told |= {books.leases[one.lease].key for one in reply.renewed if one.lease in books.leases}
    for name in reply.closed:
        lease = books.leases.get(name)
        if lease is not None and not (lease.reported is not None and lease.reported.closed):
            _close_at_last(books, lease, now_ms)
            continue
        if lease is not None and lease.key not in told:
            _used_elsewhere(books, lease)
        forget_lease(books, name)
    for name in reply.unknown_leases:
        lease = books.leases.get(name)
        if lease is not None:
            lease.closing = lease.disowned = True
            if lease.held == 0:
                forget_lease(books, name)


def _close_at_last(books: Books, lease: Lease, now_ms: int) -> None:
    """Somebody else has closed it: nothing more is taken of it, and what was used of it is still to be said."""
    lease.give_up(now_ms)
    books.pending.touch(lease)
    books.bring_news()


def _stand(books: Books, lease: Lease, standing: Standing) -> None:
    allowance = books.holder(lease)
    if allowance is not None and allowance.window_end_ms in (None, lease.window_end_ms):
        allowance.stand(standing, lease.window_end_ms, lease.window_ends_at_ms)


def _used_elsewhere(books: Books, lease: Lease) -> None:
    """What was used on a lease that has gone home still counts, whoever shows what remains."""
    allowance = books.allowances.get(lease.key)
    if allowance is not None and allowance.standing is not None and allowance.window_end_ms == lease.window_end_ms:
        standing = allowance.standing
        allowance.standing = Standing(standing.amount, standing.elsewhere + lease.settled + lease.orphan)


def forget_lease(books: Books, name: str) -> None:
    """The control plane has closed it: neither memory nor journal needs it any longer."""
    lease = books.leases.pop(name, None)
    if lease is None:
        return
    allowance = books.holder(lease)
    if allowance is not None:
        allowance.take_out(lease)
    books.pending.leases.pop(name, None)
    books.pending.forgotten.append(name)
