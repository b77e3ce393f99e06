"""Seals: by what a database that was restored to an older state knows its own grants again. Pure.

A seal does not give a right: a lease that is taken in by its seal is charged, and whoever could forge one could only
make an allowance look more used than it is. It keeps a foreign or altered grant from being taken for one of ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from protocol.codec import encode_msgpack
from protocol.leases import Grant

SEAL_BYTES = 32


def seal_of(key: bytes | None, agent: str, journal: str, grant: Grant) -> bytes:
    """The seal of a grant to one agent's journal; empty without a key."""
    if key is None:
        return b""
    said = (
        "allotment grant 1", agent, journal, grant.lease, grant.customer, grant.counter, grant.scope_value,
        grant.window_start_ms, grant.window_end_ms, grant.amount, grant.overage, grant.finishing,
        grant.per_ms, grant.burst,
    )  # fmt: skip
    return hmac.new(key, encode_msgpack(said), sha256).digest()[:SEAL_BYTES]


def holds(keys: Iterable[bytes], agent: str, journal: str, grant: Grant) -> bool:
    """Whether the grant, as it is shown, was sealed with one of these keys for this agent's journal."""
    return any(hmac.compare_digest(seal_of(key, agent, journal, grant), grant.seal) for key in keys)
