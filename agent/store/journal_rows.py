"""What the journal's tables hold, as memory sees it, and what one transaction changes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as it stands on disk; ``body`` is what it was granted with (empty in an update)."""

    lease: str
    body: bytes
    cap: int
    watermark: int
    settled: int
    orphan: int
    closing: bool
    expires_at_ms: int
    window_ends_at_ms: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One commit group's events: dense from ``first``, in one checksummed blob."""

    boot: int
    first: int
    count: int
    crc32: int
    body: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A batch that the control plane has confirmed and that is kept all the same, without its ``size`` bytes."""

    boot: int
    first: int
    count: int
    size: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """A lease that the control plane has closed; ``body`` is what it was granted with."""

    lease: str
    body: bytes
    settled: int
    orphan: int


@dataclass(slots=True)
class Write:
    """Everything that one transaction changes.

    Attributes:
        high_water: up to where the events of boots are confirmed, as last heard: it falls when they are wanted again.
        outdated: batches, by (boot, first), that are no longer kept.
        at_ms: wall clock. Leases forgotten are remembered as closed then; those closed before ``closed_since_ms`` go.
        generation: of the control plane's database, as last heard.
        confirmed_at_ms: when the control plane was last heard (wall).
    """

    new_leases: list[LeaseRow] = field(default_factory=list)
    leases: list[LeaseRow] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    opened: list[tuple[str, bytes]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    entitlements: list[tuple[str, bytes]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    batches: list[BatchRow] = field(default_factory=list)
    high_water: dict[int, int] = field(default_factory=dict)
    outdated: list[tuple[int, int]] = field(default_factory=list)
    at_ms: int = 0
    closed_since_ms: int = 0
    generation: str = ""
    confirmed_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """What is on disk. ``outbox`` waits for the control plane; ``kept`` is confirmed; ``marks``: up to where, as last
    heard and at most, by boot."""

    leases: list[LeaseRow]
    reservations: list[tuple[str, bytes]]
    entitlements: list[tuple[str, bytes]]
    outbox: list[BatchRow]
    kept: list[KeptRow] = field(default_factory=list)
    marks: dict[int, tuple[int, int]] = field(default_factory=dict)
