"""Usage events: one immutable fact each, and the batches in which an agent's journal keeps and uploads them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.ids import Key, ModelName, Tags
from protocol.instants import InstantMs
from protocol.units import METERS_MAX, Quantity, SignedAmounts

BATCH_EVENTS_MAX = 5_000
BATCH_BYTES_MAX = 4 * 1024 * 1024
CHARGES_MAX = 256


class UsageSource(StrEnum):
    """Where the numbers of an event come from."""

    PROVIDER = "provider"
    ESTIMATED = "estimated"
    NONE = "none"


class Outcome(StrEnum):
    """How a call ended. ``expired``: its reservation ran out and nobody had settled it."""

    COMPLETE = "complete"
    ABORTED = "aborted"
    ERROR = "error"
    EXPIRED = "expired"


class UnfinishedCalls(StrEnum):
    """What is charged of a call that ended before its provider had said what it used: it was aborted, it failed, or
    its caller was never heard of again. What a provider has said always counts.

    ``estimated``: the prompt and what was streamed, or all that was held where nobody knows. ``prompt``: of that only
    the input. ``nothing``: the request alone.
    """

    ESTIMATED = "estimated"
    PROMPT = "prompt"
    NOTHING = "nothing"


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Who acts inside a customer; attribution carried on every request."""

    user: Key | None = None
    workspace: Key | None = None
    role: Key | None = None
    api_key: Key | None = None


class Charge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, gc=False):
    """So much of one lease was used by this event.

    ``orphan``: out of what a crash had left unexplained there. If the event turns out to be a repetition, another call
    used it: it stays charged.
    """

    lease: Key
    amount: Quantity
    orphan: bool = False


class Priced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, gc=False):
    """What made one derived meter of an event, so that it can be traced, and priced again.

    Attributes:
        by: the price book and version (``standard@3``), or the plan and version whose own rate it was.
        model: the model whose rate it was; ``None`` for a rate of all models.
        per: what that rate divides by.
        known: whether a rate was meant for such a call. If not, it counts by what was asked for, or by the dearest.
    """

    meter: Key
    by: Annotated[str, msgspec.Meta(max_length=140)]
    model: ModelName | None = None
    per: int = 1
    known: bool = True


class UsageEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Who used how much of what, when, under which leases.

    Attributes:
        event: its identity inside the customer: the reservation's id, or the id given to ``record``.
        at_ms: when the usage was reported to the agent (or the instant the caller gave), agent's wall clock.
        amounts: meters. Signed only in a correction, where they are the difference to what was said first.
        tokens: the disjoint token classes behind them, where known.
        charges: which leases paid. What no lease paid, the control plane debits directly.
        corrects: the event that this one corrects.
        version: the entitlement version that the decision was made under; 0 if none was known.
        derived: which of ``amounts`` nobody reported: the entitlement's rates made them of the others.
        priced: by which rate, for each of those.
    """

    event: Key
    customer: Key
    feature: Key
    at_ms: InstantMs
    amounts: SignedAmounts
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None
    provider: Key | None = None
    tokens: SignedAmounts = {}
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: Outcome = Outcome.COMPLETE
    charges: Annotated[tuple[Charge, ...], msgspec.Meta(max_length=CHARGES_MAX)] = ()
    corrects: Key | None = None
    version: int = 0
    derived: Annotated[tuple[Key, ...], msgspec.Meta(max_length=METERS_MAX)] = ()
    priced: Annotated[tuple[Priced, ...], msgspec.Meta(max_length=METERS_MAX)] = ()


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The events of one commit group, as they lie in the journal.

    Attributes:
        boot: the boot counter of the agent that wrote them; sequence numbers are dense per (journal, boot), from 1.
        first: sequence number of the first event.
        count: how many events ``body`` holds.
        crc32: of ``body``; a disk that lies is noticed before the ledger believes it.
        body: msgpack array of :class:`UsageEvent`.
    """

    boot: Annotated[int, msgspec.Meta(ge=1)]
    first: Annotated[int, msgspec.Meta(ge=1)]
    count: Annotated[int, msgspec.Meta(ge=1, le=BATCH_EVENTS_MAX)]
    crc32: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    body: Annotated[bytes, msgspec.Meta(max_length=BATCH_BYTES_MAX)]
