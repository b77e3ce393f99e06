"""What an application and its agent say to each other over the local socket; ``WIRE.md`` shows the bytes.

One request struct for each operation, told apart by ``op``; one reply struct for each kind of answer, told apart by
``kind``. The HTTP door carries the same structs as JSON, with the operation in the path.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.admission import Estimate, Priority
from protocol.decisions import Decision, LimitState
from protocol.entitlements import FeatureValue
from protocol.events import Outcome, Subject, UsageSource
from protocol.ids import Key, ModelName, Tags
from protocol.instants import InstantMs
from protocol.units import QUANTITY_MAX, Amounts

RequestId = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
DeadlineMs = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
TtlMs = Annotated[int, msgspec.Meta(ge=1_000, le=24 * 3_600_000)]

BodyBytes = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
Path = Annotated[str, msgspec.Meta(max_length=2_048)]
AnswerHeaders = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=128)], Annotated[str, msgspec.Meta(max_length=1_024)]],
    msgspec.Meta(max_length=16),
]
JSON_TYPE = "application/json"

DEADLINE_MS = 2_000
"""How long a call may wait, unless it says otherwise, for a first lease or for returns."""

RESERVATION_TTL_MS = 600_000
"""How long a reservation lives unless it says otherwise: the longest calls of today's models, and some."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Who is about to use what: the part that every operation on usage shares."""

    customer: Key
    feature: Key
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None


class _Request(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="op",
    tag=str.lower,
    kw_only=True,
):
    id: RequestId = 0


class Check(_Request, frozen=True):
    """May this call go ahead? Holds nothing. ``amounts`` are what it would use; one request is understood."""

    call: Call
    amounts: Amounts = {}
    deadline_ms: DeadlineMs = DEADLINE_MS
    breakdown: bool = False
    priority: Priority = Priority.INTERACTIVE


class Reserve(_Request, frozen=True):
    """Hold ``amounts`` for a call in flight, if every limit on its path has room. Repeating it changes nothing.

    ``estimates``: other amounts, held instead where a limit on its path asks for that estimate.
    """

    reservation: Key
    call: Call
    amounts: Amounts = {}
    estimates: dict[Estimate, Amounts] = {}
    ttl_ms: TtlMs = RESERVATION_TTL_MS
    deadline_ms: DeadlineMs = DEADLINE_MS
    breakdown: bool = False
    priority: Priority = Priority.INTERACTIVE


class Extend(_Request, frozen=True):
    """Hold so that ``amounts`` are held in all (a stream asks for its next slice).

    Saying the total, not the step, makes repeats harmless.
    """

    reservation: Key
    amounts: Amounts
    ttl_ms: TtlMs = RESERVATION_TTL_MS
    deadline_ms: DeadlineMs = 0


class Settle(_Request, frozen=True):
    """What a reservation really used.

    ``call`` lets an agent that lost its memory in a crash account for it all the same.
    """

    reservation: Key
    amounts: Amounts = {}
    tokens: Amounts = {}
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: Outcome = Outcome.COMPLETE
    model: ModelName | None = None
    provider: Key | None = None
    call: Call | None = None


class Release(_Request, frozen=True):
    """The call did not happen: give back all that is held."""

    reservation: Key


class Begin(_Request, frozen=True):
    """A model call is about to be sent: the agent reads its request, and holds what it may use. Those that cost nothing
    are allowed without a reservation.

    ``body`` may come in pieces, each with the ``offset`` at which it stands in all ``size`` bytes, in order; all but
    the last are answered ``taken``. Without any, every byte counts as text. ``sent``: it is on its way already, and an
    agent that does not know it learns of it: it is accounted for whatever is decided. What is fetched (``method`` is
    ``GET``) of which usage may be told - a batch, an answer that was made in the background - has a reservation of
    nothing.
    """

    reservation: Key
    call: Call
    provider: Key
    path: Path
    content_type: Annotated[str, msgspec.Meta(max_length=256)] = JSON_TYPE
    size: BodyBytes = 0
    estimate: Estimate = Estimate.SLICES
    sent: bool = False
    body: bytes = b""
    offset: BodyBytes = 0
    deadline_ms: DeadlineMs = DEADLINE_MS
    method: Annotated[str, msgspec.Meta(max_length=16)] = "POST"


class Feed(_Request, frozen=True):
    """Bytes of the answer to a call that was begun: those that follow the first ``offset`` of it.

    ``headers`` of the answer, with the first of them: what says how to read it.
    """

    reservation: Key
    body: bytes = b""
    offset: BodyBytes = 0
    headers: AnswerHeaders = {}


class End(_Request, frozen=True):
    """A call that was begun has ended; the last bytes of its answer as in :class:`Feed`.

    Attributes:
        status: of the answer; ``None``: there was none. whole: it came to its end.
        sent: the request may have reached the provider.
    """

    reservation: Key
    body: bytes = b""
    offset: BodyBytes = 0
    headers: AnswerHeaders = {}
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] | None = None
    whole: bool = True
    sent: bool = True


class Record(_Request, frozen=True):
    """Usage that nobody reserved. It is counted whether or not it fits: it has already happened."""

    event: Key
    call: Call
    amounts: Amounts = {}
    tokens: Amounts = {}
    at_ms: InstantMs | None = None
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: Outcome = Outcome.COMPLETE
    provider: Key | None = None


class Usage(_Request, frozen=True):
    """How the limits of a customer stand: for a widget that shows what is left. Subject and tags say whose counters of
    those limits are meant that are not kept for the customer as a whole."""

    customer: Key
    feature: Key | None = None
    user: Key | None = None
    workspace: Key | None = None
    role: Key | None = None
    api_key: Key | None = None
    tags: Tags = {}
    deadline_ms: DeadlineMs = DEADLINE_MS


class Status(_Request, frozen=True):
    """How the agent itself is."""


Request = Check | Reserve | Extend | Settle | Release | Begin | Feed | End | Record | Usage | Status


class Recorded(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="recorded"):
    """It is on disk and will be counted exactly once.

    Attributes:
        event: identity of the usage event; absent for a release, which leaves none.
        amounts: what was counted, by meter.
        duplicate: it had been said before, in the same words; nothing changed.
        corrects: the event that this one corrects, where other words had been said before.
    """

    id: int = 0
    event: str | None = None
    amounts: dict[str, int] = {}
    duplicate: bool = False
    corrects: str | None = None


class Taken(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="taken"):
    """Bytes have been taken.

    Attributes:
        bytes: how many more of the answer may come before it must be fed again.
        cut: why the call gets no more: end it.
    """

    id: int = 0
    bytes: int = 0
    cut: Decision | None = None


class UsageReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="usage"):
    """How the limits of a customer stand as far as this agent knows, and what it has of features: their value, or
    whether they are on."""

    id: int = 0
    customer: str
    plan: str
    status: str
    policy_version: int
    staleness_ms: int
    features: dict[str, FeatureValue]
    limits: tuple[LimitState, ...]


class StatusReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="status"):
    """How the agent is: who it is, what it holds, and whether the control plane hears it."""

    id: int = 0
    agent: str
    version: str
    journal: str
    boot: int
    state: str
    uptime_ms: int
    control_plane: dict[str, bool | int | str | None]
    customers: int
    leases: int
    reservations: int
    outbox_events: int
    oldest_unsent_ms: int
    connections: int
    counters: dict[str, int]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was wrong with a request: a stable ``code``, a sentence, and the field that it is about."""

    code: str
    message: str
    field: str | None = None


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="error"):
    """The request could not be understood or carried out. ``retry``: the same request under the same id may succeed."""

    id: int = 0
    error: Problem
    retry: bool = False


Reply = Decision | Recorded | Taken | UsageReport | StatusReport | ErrorReply
