"""The way in that check, reserve and extend share: is there room on the whole path, and if not, what is missing?"""

from __future__ import annotations

import msgspec

from agent.core import answers
from agent.core.ahead import is_ending
from agent.core.books import CUSTOMERS_MAX, Books, Customer
from agent.core.budget import Allowance, Purpose
from agent.core.decide import Path, Room, decide, grown_too_big, too_big
from agent.core.derived import with_most
from agent.core.lacking import RETRY_MS, Refused, Wait, kept_for_others, rests
from protocol.admission import Priority
from protocol.decisions import Code, Decision, feature_refusal
from protocol.entitlements import Entitlement
from protocol.local_messages import Call
from protocol.uplink_messages import FirstCall
from protocol.violations import Violation

BATCH = Priority.BATCH
DISK_PATIENCE_MS = 250
"""How long a call waits for the journal beyond its deadline: the disk is near, and a commit takes milliseconds."""

CROWDED = f"This host serves {CUSTOMERS_MAX} customers already; those idle are forgotten after minutes, try again."


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Every limit on the path has room for ``meters``, derived ones included; take in the same breath."""

    customer: Customer
    entitlement: Entitlement
    path: Path
    meters: dict[str, int]


def admit(
    books: Books,
    call: Call,
    meters: dict[str, int],
    now_ms: int,
    until_ms: int,
    *,
    priority: Priority = Priority.INTERACTIVE,
    totals: dict[str, int] | None = None,
) -> Admitted | Decision | None:
    """Look for room on every limit that the call touches.

    Args:
        meters: what must fit, by meter.
        until_ms: how long the caller waits for a lease; for the disk, a little longer (``DISK_PATIENCE_MS``).
        totals: of a call in flight that wants ``meters`` more: what it has in all then, both with derived meters.

    Returns:
        ``None`` when it must wait: a lease or a higher watermark has been asked for.

    Raises:
        Violation: a meter that the catalog does not know, or that is derived of others.
    """
    staleness_ms = max(0, now_ms - books.confirmed_at_ms)
    if books.crowded_for(call.customer):
        return answers.undecided(None, call.feature, CROWDED, None, RETRY_MS, staleness_ms)
    customer = books.customer(call.customer)
    customer.last_used_ms = now_ms
    entitlement = customer.entitlement
    if books.refusing:
        return answers.undecided(entitlement, call.feature, books.refusing, None, RETRY_MS, staleness_ms)
    if entitlement is None:
        return _first_sight(books, customer, call, meters, priority, now_ms, until_ms)
    if (code := _not_entitled(books, customer, entitlement, call, meters, now_ms)) is not None:
        customer.unmet = (call, meters, priority, now_ms)
        return answers.not_entitled(code, call.feature, entitlement, staleness_ms)
    require_known_meters(customer, meters)
    asked, derives = meters, totals is None and customer.card.rates
    meters = with_most(customer.card.choose(call.feature, call.model), meters) if derives else meters
    if books.too_many_counters_for(customer, call, meters):
        return answers.undecided(entitlement, call.feature, CROWDED, None, RETRY_MS, staleness_ms)
    path = books.path(customer, call, meters, now_ms)
    batch, going_on = priority is BATCH, totals is not None
    never = too_big(path, meters) if totals is None else grown_too_big(path, meters, totals)
    outcome = never or decide(path, meters, entitlement.version, now_ms, until_ms, batch, going_on)
    if batch and not isinstance(outcome, Refused):
        outcome = kept_for_others(path.steps, meters) or outcome
    if isinstance(outcome, Room):
        return Admitted(customer, entitlement, path, meters)
    if not going_on:
        customer.unmet = (call, asked, priority, now_ms)
    if isinstance(outcome, Wait):
        _seek(books, customer, outcome, meters, now_ms, batch=batch)
        if _may_wait(books, outcome, now_ms, until_ms):
            return None
        if outcome.hoped is None:
            return _out_of_time(books, entitlement, outcome, call.feature, now_ms)
        outcome = outcome.hoped
    said = totals or meters
    return answers.refused(entitlement, path, outcome, said, call.feature, now_ms, staleness_ms, going_on=going_on)


def _not_entitled(
    books: Books, customer: Customer, entitlement: Entitlement, call: Call, meters: dict[str, int], now_ms: int
) -> Code | None:
    """Why the feature may not be used at all, or not with this model, which has no price. A subscription that ends by
    itself may be followed by a newer one."""
    code = feature_refusal(entitlement.status, customer.features.get(call.feature), call.subject.role)
    if code is None and customer.card.rates:
        choice = customer.card.choose(call.feature, call.model)
        if not choice.certain and choice.unpriced(choice.most(meters)) is not None:
            return Code.MODEL_UNAVAILABLE
    if code is None and customer.ends_at_ms is not None and customer.ends_at_ms <= now_ms:
        books.look_again.add(customer.name)
        books.tell_sync()
        return Code.NO_ACTIVE_SUBSCRIPTION
    return code


def _may_wait(books: Books, wait: Wait, now_ms: int, until_ms: int) -> bool:
    """Whether the caller has the time to wait, and there is something to wait for."""
    if wait.short or wait.hoped:
        return now_ms < until_ms and (wait.local or not books.uplink_down)
    return now_ms < until_ms + DISK_PATIENCE_MS


def require_known_meters(customer: Customer, meters: dict[str, int]) -> None:
    """Raises: Violation: a meter that the catalog does not know (a misspelt one would pass every limit unseen)."""
    if customer.meters and not customer.meters.issuperset(meters):
        name = next(name for name in meters if name not in customer.meters)
        raise Violation(
            f"amounts.{name}", "is not a meter", "one of " + ", ".join(sorted(customer.meters)), code="meter_not_found"
        )


def seek_lease(books: Books, allowance: Allowance, need: int, now_ms: int, *, batch: bool = False) -> None:
    """Ask for more of an allowance, unless an ask is under way or one for as little was just refused."""
    allowance.backlog += need
    if allowance.ask is not None:
        if not allowance.ask_sent:
            allowance.ask_need = allowance.need_of_all(need)
            allowance.ask_batch = allowance.ask_batch and batch
    elif not rests(allowance, need, now_ms, batch=batch):
        allowance.ask = books.new_lease_id()
        allowance.ask_need, allowance.ask_batch, allowance.ask_sent = need, batch, False
        books.asking[allowance.ask] = allowance
        books.wake_sync()


def seek_ahead(books: Books, allowance: Allowance, length_ms: int, now_ms: int) -> None:
    """Ask for the next window's lease, once, when this window is about to end.

    Args:
        length_ms: of this window.
    """
    if is_ending(length_ms, allowance.window_ends_at_ms - now_ms):
        ahead = allowance.beside(Purpose.AHEAD, now_ms)
        if not ahead.leases:
            seek_lease(books, ahead, 0, now_ms)


def _seek(books: Books, customer: Customer, wait: Wait, meters: dict[str, int], now_ms: int, *, batch: bool) -> None:
    for _, allowance, lack in wait.short:
        seek_lease(books, allowance, lack, now_ms, batch=batch)
    for step in wait.uncovered:
        for part in step.allowance.parts():
            part.awaited += meters[step.meter]
            for lease in part.live(now_ms, drain=step.drain):
                books.pending.touch(lease)
        books.waiting_for_disk.add(customer.name)
        books.pending.urgent = True
        books.wake_writer()
    if not wait.uncovered:
        for rate, amount in wait.filling:
            rate.queued += amount
            customer.queues.append(rate)


def _first_sight(
    books: Books,
    customer: Customer,
    call: Call,
    meters: dict[str, int],
    priority: Priority,
    now_ms: int,
    until_ms: int,
) -> Decision | None:
    staleness_ms = max(0, now_ms - books.confirmed_at_ms)
    if customer.unknown_until_ms > now_ms:
        return answers.not_entitled(Code.CUSTOMER_NOT_FOUND, call.feature, None, staleness_ms)
    if customer.first_call is None:
        customer.first_call = FirstCall(
            books.new_lease_id(), call.feature, call.subject, meters, call.tags, priority, call.model
        )
        books.look_again.add(customer.name)
        books.wake_sync()
    if now_ms < until_ms and not books.uplink_down:
        return None
    why = "This customer is new to this host, and the control plane has not answered yet; try again."
    return answers.undecided(None, call.feature, why, None, RETRY_MS, staleness_ms)


def _out_of_time(books: Books, entitlement: Entitlement, wait: Wait, feature: str, now_ms: int) -> Decision:
    """It has waited as long as its caller allowed. What is known to be used up was refused before; this is unknown."""
    staleness_ms = max(0, now_ms - books.confirmed_at_ms)
    if not wait.short:
        limiting = wait.uncovered[0].limit.key
        why_text = "The journal on this host's disk does not keep up or is full; try again, and see `status`."
    else:
        step = wait.short[0][0]
        limiting = step.limit.key
        lent_out = now_ms < step.allowance.denied_until_ms and not books.uplink_down
        why_text = (
            f"What is left of limit {limiting!r} is lent to other hosts or held by calls in flight; try again."
            if lent_out
            else f"No lease on limit {limiting!r} is left here, and the control plane has not answered; try again."
        )
    return answers.undecided(entitlement, feature, why_text, limiting, RETRY_MS, staleness_ms)
