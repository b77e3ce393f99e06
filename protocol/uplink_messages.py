"""What an agent and the control plane say to each other over HTTPS: enrol, one cumulative sync, one hanging watch.

Everything in a sync is cumulative or idempotent, so a lost answer is cured by sending the same or a newer body.
Durations, never absolute times, between machines: an agent counts them from the moment it asked.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.admission import Priority
from protocol.entitlements import Entitlement
from protocol.events import EventBatch, Subject
from protocol.ids import Key, ModelName, Tags
from protocol.leases import Counter, Denial, Grant, LeaseReport, Recall, Renewal, ScopeValue
from protocol.units import QUANTITY_MAX, Amounts, Quantity

SYNC_PATH = "/v1/agents/sync"
WATCH_PATH = "/v1/agents/watch"
ENROLL_PATH = "/v1/agents/enroll"
MSGPACK = "application/msgpack"

SYNC_BYTES_MAX = 8 * 1024 * 1024
ASKS_MAX = 2_000
LEASES_MAX = 20_000
BATCHES_MAX = 512
MARKS_MAX = 256
"""Starts of one journal of which an agent speaks at once: the newest."""

WATCH_WAIT_MS_MAX = 55_000
"""Under the minute after which proxies on the way give up; an idle host says little more than a word a minute."""

Secret = Annotated[str, msgspec.Meta(min_length=8, max_length=200)]


class EnrollRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Trade a join token for an identity of one's own (JSON)."""

    join_token: Secret
    name: Key


class EnrollReply(msgspec.Struct, frozen=True):
    """The agent's identity and its token; the token is shown this once and stored only as a hash."""

    agent: Key
    token: Secret


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Please lend more of one allowance.

    Attributes:
        lease: the id that the lease shall have; asking again under it grants at most once.
        need: the least that helps: what waiting calls lack. 0 asks ahead of need.
        demand_per_min: how fast calls here have been reserving lately.
        typical: what one call reserves, for telling when leases must degenerate to one per call.
        ahead: of the window that follows the present one, so that its beginning is no rush.
        finishing: for calls in flight that go on beyond a limit whose plan lets them finish.
        priority: ``batch`` when all who wait are; it leaves the limit's floor.
    """

    lease: Key
    counter: Counter
    scope_value: ScopeValue
    need: Quantity
    demand_per_min: Quantity = 0
    typical: Quantity = 0
    ahead: bool = False
    finishing: bool = False
    priority: Priority = Priority.INTERACTIVE


class FirstCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The shape of a call by a customer not seen here before: lend what it needs of every limit on its path.

    The leases take the ids ``<leases>.0``, ``<leases>.1``, ... in the order of the entitlement's limits.
    """

    leases: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")]
    feature: Key
    subject: Subject
    amounts: Amounts
    tags: Tags = {}
    priority: Priority = Priority.INTERACTIVE
    model: ModelName | None = None


class CustomerSync(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an agent wants to know or to have of one customer. ``version``: of the entitlement that the last
    sync told, 0 for none; a watch may have brought a newer one, of which the agent's leases are still to be heard."""

    customer: Key
    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    first_calls: Annotated[tuple[FirstCall, ...], msgspec.Meta(max_length=ASKS_MAX)] = ()
    asks: Annotated[tuple[Ask, ...], msgspec.Meta(max_length=ASKS_MAX)] = ()


class HighWater(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All events of a boot up to and including ``seq`` are in the ledger (or kept as conflicts).

    A mark that is lower than one heard before asks for what came after it once more: the database was restored.
    """

    boot: Annotated[int, msgspec.Meta(ge=0)]
    seq: Annotated[int, msgspec.Meta(ge=0)]


class SyncRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exchange (msgpack).

    Attributes:
        journal: random id made when the journal was created; ``boot`` counts its starts; ``nonce`` is new at each
            start. Together with the token's agent they are the incarnation.
        snapshot: ``leases`` lists every lease in the journal; sent in the first sync after a start. Leases of this
            journal granted to an earlier boot and not listed were never used and are closed as unused.
        stopping: the agent is draining; grant it nothing.
        sealed: grants that the last answer asked to be shown (:attr:`SyncReply.show`); only in a snapshot.
        confirmed: how far answers have confirmed the events of each boot, as last heard. A mark beyond what the control
            plane has says that its database was restored to an older state.
        lost: events that were confirmed, are wanted again, and are no longer here: up to this mark nothing will come.
        generation: as last heard (:attr:`SyncReply.generation`); empty if none was.
        serial: counts the exchanges of this start, from 1, so that asks in a message that was overtaken are granted to
            nobody; 0 says nothing of the order.
    """

    journal: Key
    boot: Annotated[int, msgspec.Meta(ge=1)]
    nonce: Key
    customers: Annotated[tuple[CustomerSync, ...], msgspec.Meta(max_length=LEASES_MAX)] = ()
    leases: Annotated[tuple[LeaseReport, ...], msgspec.Meta(max_length=LEASES_MAX)] = ()
    batches: Annotated[tuple[EventBatch, ...], msgspec.Meta(max_length=BATCHES_MAX)] = ()
    snapshot: bool = False
    stopping: bool = False
    sealed: Annotated[tuple[Grant, ...], msgspec.Meta(max_length=LEASES_MAX)] = ()
    confirmed: Annotated[tuple[HighWater, ...], msgspec.Meta(max_length=MARKS_MAX)] = ()
    lost: Annotated[tuple[HighWater, ...], msgspec.Meta(max_length=MARKS_MAX)] = ()
    generation: Annotated[str, msgspec.Meta(max_length=64)] = ""
    serial: Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)] = 0


class EventProblem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event that was not simply accepted: ``duplicate``, ``conflict``, ``unknown_customer``, ``corrupt`` ..."""

    boot: int
    seq: int
    event: str
    code: str
    message: str


class SyncReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer (msgpack).

    Attributes:
        entitlements: of customers named in the request whose version is newer than the one the agent holds.
        unknown_customers: named in the request, known to nobody.
        renewed, recalls: of leases that the request reported as open.
        closed: leases that the control plane has closed, or had: forget them.
        unknown_leases: reported, but not this agent's: use nothing of them.
        show: reported, and not known here: send their grants as they were given, with their seals, in a snapshot.
            No events are taken in meanwhile: which leases paid for them must be known first.
        generation: names the state of the database since it was made or last restored. When it changes, the next sync
            is a snapshot that also lists leases lately closed, as far as they are remembered.
    """

    high_water: tuple[HighWater, ...] = ()
    event_problems: tuple[EventProblem, ...] = ()
    entitlements: tuple[Entitlement, ...] = ()
    unknown_customers: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    denials: tuple[Denial, ...] = ()
    renewed: tuple[Renewal, ...] = ()
    recalls: tuple[Recall, ...] = ()
    closed: tuple[str, ...] = ()
    unknown_leases: tuple[str, ...] = ()
    show: tuple[str, ...] = ()
    generation: str = ""


class WatchReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something may have changed: look again at these customers (msgpack).

    Attributes:
        cursor: to be sent with the next watch; ``GET /v1/agents/watch?cursor=N&wait_ms=M&entitlements=true``. A first
            watch sends -1 and is answered at once.
        customers: whose entitlement changed since the cursor.
        recall: leases of this agent are wanted back; sync now to learn which.
        returned: capacity came back to these customers' allowances; calls that wait for some may ask again.
        reset: the cursor is unknown (too old); treat every customer as changed.
        entitlements: what is new, for those who asked for it and where it is little: in force at once, before the sync
            that follows all the same. A customer without one here is asked about.
        waited_ms: how long the request had hung when the entitlements were read; their durations count from then.
    """

    cursor: int
    customers: tuple[Key, ...] = ()
    recall: bool = False
    returned: tuple[Key, ...] = ()
    reset: bool = False
    entitlements: tuple[Entitlement, ...] = ()
    waited_ms: int = 0
