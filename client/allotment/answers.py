"""What the agent answers, as frozen values, and how they are read from the maps on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from allotment.errors import Blocked, Throttled


@dataclass(frozen=True, slots=True)
class LimitState:
    """How one limit stands, as far as this agent knows; ``remaining`` is None where it is unlimited."""

    limit: str
    meter: str
    window: str
    granted: bool
    amount: int | None = None
    usage: int = 0
    remaining: int | None = None
    scope: str = "customer"
    scope_value: str = ""
    resets_at: str | None = None
    resets_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is held for a call in flight; the agent ends it by itself after ``expires_in_ms`` milliseconds."""

    id: str
    expires_in_ms: int
    amounts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to ``check``, ``reserve`` and ``extend``. It is true where the call may go ahead.

    Attributes:
        decision: ``allow``, ``throttle`` or ``block``; ``code`` says why, ``message`` says it to people.
        limiting: the limit that decided, or on ``allow`` the one with the least left; ``amount``, ``usage``,
            ``remaining``, ``resets_at`` and ``resets_in_ms`` are of that limit.
        retry_after_ms: when asking again makes sense.
        max_output_tokens: a hint: how many output tokens could be paid for now, those reserved included. Other calls
            draw on the same; without ``extend`` no more may be used than the reservation holds.
        staleness_ms: how long ago the control plane last confirmed what this decision used.
        is_fallback: decided under an offline rule.
        breakdown: every limit on the path; always in a refusal, otherwise when asked for.
    """

    decision: str
    has_access: bool
    code: str
    message: str
    feature: str
    limiting: str | None = None
    amount: int | None = None
    usage: int | None = None
    remaining: int | None = None
    resets_at: str | None = None
    resets_in_ms: int | None = None
    retry_after_ms: int | None = None
    reservation: Reservation | None = None
    max_output_tokens: int | None = None
    plan: str = ""
    policy_version: int = 0
    staleness_ms: int = 0
    is_fallback: bool = False
    breakdown: tuple[LimitState, ...] = ()

    @property
    def allowed(self) -> bool:
        """The call may go ahead."""
        return self.decision == "allow"

    @property
    def throttled(self) -> bool:
        """Not now; see ``retry_after_ms``."""
        return self.decision == "throttle"

    @property
    def blocked(self) -> bool:
        """Not until something changes. An answer this library does not know counts as blocked."""
        return self.decision not in {"allow", "throttle"}

    def __bool__(self) -> bool:
        return self.decision == "allow"

    def raise_for_refusal(self) -> Decision:
        """Returns itself where the call is allowed.

        Raises:
            Throttled, Blocked: where it is not.
        """
        if self.decision == "allow":
            return self
        raise (Throttled if self.decision == "throttle" else Blocked)(self)


@dataclass(frozen=True, slots=True)
class Recorded:
    """It is on the agent's disk and will be counted exactly once.

    Attributes:
        event: identity of the usage event; None for a release, which leaves none.
        amounts: what was counted, by meter.
        duplicate: it had been said before in the same words; nothing changed.
        corrects: the event that this one corrects, where other words had been said before.
    """

    event: str | None = None
    amounts: dict[str, int] = field(default_factory=dict)
    duplicate: bool = False
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes of a model call have been taken.

    Attributes:
        bytes: how many more of its answer may come before it must be fed again.
        cut: why the call gets no more.
    """

    bytes: int = 0
    cut: Decision | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """How the limits of a customer stand as far as this agent knows.

    Attributes:
        features: whether each is on; of a static one that is on, its value: anything that JSON can say.
    """

    customer: str
    plan: str
    status: str
    policy_version: int
    staleness_ms: int
    features: dict[str, Any]
    limits: tuple[LimitState, ...]


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How the agent is: who it is, what it holds, and whether the control plane hears it."""

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


Answer = Decision | Recorded | Taken | UsageReport | StatusReport

_KINDS: dict[str, type[Answer]] = {
    "decision": Decision,
    "recorded": Recorded,
    "taken": Taken,
    "usage": UsageReport,
    "status": StatusReport,
}
_NAMES = {kind: frozenset(f.name for f in fields(kind)) for kind in (*_KINDS.values(), LimitState, Reservation)}
_REQUIRED = {
    kind: frozenset(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    for kind in _NAMES
}
_NESTED = {"breakdown", "limits", "reservation", "cut"}


def read_answer(reply: Mapping[str, Any]) -> Answer:
    """The typed answer of a reply map. Fields that a newer agent adds are passed over.

    Raises:
        ValueError: it is no answer that this library knows.
    """
    kind = _KINDS.get(reply.get("kind", ""))
    if kind is None:
        raise ValueError(f"the agent answered with an unknown kind: {reply.get('kind')!r:.80}")
    return _read(kind, reply)


def _read(kind: type[Answer], reply: Any) -> Answer:
    known = _known(kind, reply)
    for name in _NESTED & known.keys():
        known[name] = _nested(name, known[name])
    return kind(**known)


def _known(kind: Any, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"the agent answered with a {type(given).__name__} where a {kind.__name__} belongs")
    names = _NAMES[kind]
    known = {name: value for name, value in given.items() if name in names}
    missing = _REQUIRED[kind] - known.keys()
    if missing:
        raise ValueError(f"the agent answered with a {kind.__name__} that lacks {', '.join(sorted(missing))}")
    return known


def _nested(name: str, value: Any) -> Any:
    if name == "reservation":
        return None if value is None else Reservation(**_known(Reservation, value))
    if name == "cut":
        return None if value is None else _read(Decision, value)
    if not isinstance(value, list):
        raise ValueError(f"the agent answered with a {type(value).__name__} as {name}")
    return tuple(LimitState(**_known(LimitState, item)) for item in value)
