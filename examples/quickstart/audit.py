"""What the callers were told against what the ledger says: nothing lost, nothing twice, no limit passed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from examples.quickstart.admin import Admin
from examples.quickstart.callers import Told

METERS = ("input_tokens", "output_tokens", "requests")
ARRIVAL_S = 20.0


@dataclass
class Audit:
    """The findings.

    Attributes:
        settled, ledger: by meter: what callers were told is recorded, and what the ledger holds.
        overspend: by how much limits were passed, over all customers and limits: by the control plane's own count, and
            by the callers' words (of calls that began and were decided inside the present window).
        lost: settles acknowledged to a caller that the ledger does not hold as told.
        duplicated: events of one call beyond the first, and events of calls that no caller settled.
        remaining: by customer and limit, for limits kept once a customer.
    """

    settled: Counter[str] = field(default_factory=Counter)
    ledger: Counter[str] = field(default_factory=Counter)
    by_customer: dict[str, Counter[str]] = field(default_factory=dict)
    remaining: dict[str, dict[str, int | None]] = field(default_factory=dict)
    overspend: int = 0
    lost: int = 0
    duplicated: int = 0
    conflicts: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything agrees."""
        equal = all(self.settled[meter] == self.ledger[meter] for meter in METERS)
        return equal and not (self.overspend or self.lost or self.duplicated or self.conflicts)


def wait_for_arrival(admin: Admin, customers: Iterable[str], told: list[Told]) -> None:
    """Give the agents time to upload what they have acknowledged."""
    names, expected = list(customers), sum(1 for one in told if one.settled)
    until = time.monotonic() + ARRIVAL_S
    while time.monotonic() < until:
        if sum(admin.usage(name).get("requests", 0) for name in names) >= expected:
            return
        time.sleep(0.25)


def audit(admin: Admin, customers: Iterable[str], told: list[Told]) -> Audit:
    """Compare, customer by customer, call by call."""
    found = Audit()
    settled: dict[str, list[Told]] = defaultdict(list)
    for one in told:
        if one.settled is not None:
            settled[one.call.customer].append(one)
            found.settled.update(one.settled)
    for customer in customers:
        found.ledger.update(admin.usage(customer))
        found.by_customer[customer] = sum((Counter(one.settled) for one in settled[customer]), Counter())
        _calls(found, settled[customer], list(admin.events(customer)))
        _limits(found, customer, settled[customer], list(admin.balances(customer)))
    found.conflicts = len([one for one in admin.conflicts() if one["customer"] in found.by_customer])
    return found


def _calls(found: Audit, settled: list[Told], events: list[dict[str, Any]]) -> None:
    in_ledger: dict[str, list[dict[str, int]]] = defaultdict(list)
    for event in events:
        usage = event["usage"]
        in_ledger[usage.get("corrects") or event["event"]].append(usage["amounts"])
    for one in settled:
        held = in_ledger.pop(one.reservation, [])
        if not any(amounts == one.settled for amounts in held):
            found.lost += 1
            found.findings.append(f"{one.reservation}: told {one.settled}, the ledger holds {held}")
        found.duplicated += max(0, len(held) - 1)
    for name, held in in_ledger.items():
        found.duplicated += len(held)
        found.findings.append(f"{name}: in the ledger as {held}, but no caller was told so")


def _limits(found: Audit, customer: str, settled: list[Told], balances: list[dict[str, Any]]) -> None:
    found.remaining[customer] = {}
    for balance in balances:
        if balance["window_start"] is None:
            continue
        if not balance["scope_value"]:
            found.remaining[customer][balance["limit"]] = balance["remaining"]
        if balance["unlimited"]:
            continue
        start_ms, end_ms = _ms(balance["window_start"]), _ms(balance["window_end"])
        used = sum(
            (one.settled or {}).get(balance["meter"], 0)
            for one in settled
            if start_ms <= one.asked_at_ms
            and one.decided_at_ms < end_ms
            and (balance["scope"] != "user" or one.call.user == balance["scope_value"])
        )
        used = max(used, balance["used"])
        if used > balance["ceiling"]:
            found.overspend += used - balance["ceiling"]
            found.findings.append(f"{customer} {balance['limit']}: used {used} of {balance['ceiling']}")


def _ms(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1_000)
