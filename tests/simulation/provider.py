"""The provider that calls go to: it knows what was truly used, whatever our own counters say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.chronicle import Chronicle
from tests.simulation.contracts import Contracts, Key


@dataclass
class Provider:
    """The truth.

    Attributes:
        used: by allowance: what calls that had been allowed have used (or will have, once they end).
        by_lease: the same by the lease that was to pay for it. lease_key: which allowance a lease is a slice of.
        afterwards: by (customer, meter): what was reported after the fact and had not been allowed: records, and what
            a call used beyond what it held.
        forgiven: by allowance: rights that may live twice, because a disk was rolled back or cloned.
        tainted: journals of such disks.
        worst: by allowance kind: the largest share of a bound that was ever used.
    """

    contracts: Contracts
    chronicle: Chronicle
    used: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    by_lease: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lease_key: dict[str, Key] = field(default_factory=dict)
    afterwards: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    forgiven: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    tainted: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    forgive: Callable[[], None] = lambda: None

    def use(self, lease: str, key: Key, amount: int) -> None:
        """A call that was allowed uses so much, paid by this lease."""
        self.by_lease[lease] += amount
        self.lease_key[lease] = key
        self.used[key] += amount
        if self.used[key] > self.contracts.bound(key) + self.forgiven.get(key, 0):
            self.forgive()
        if self.used[key] > self.contracts.bound(key) + self.forgiven.get(key, 0):
            self.chronicle.breach(
                "overspend",
                f"{key}: {self.used[key]} used, at most {self.contracts.bound(key)} allowed"
                f" ({self.forgiven.get(key, 0)} forgiven)",
            )
        if lease in self.closed and not self.is_tainted(lease):
            self.chronicle.breach("closed leases pay for nothing", f"{lease} of {key} used after it was closed")

    def is_tainted(self, lease: str) -> bool:
        """Whether the disk that holds it was rolled back or cloned."""
        return lease.partition("-")[0] in self.tainted
