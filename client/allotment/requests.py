"""The requests, one function each: from arguments to the map that goes on the wire, defaults left out."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict, Unpack


class CallOptions(TypedDict, total=False):
    """Who acts inside the customer and how the call is labelled (attribution); all optional."""

    user: str | None
    workspace: str | None
    role: str | None
    api_key: str | None
    tags: Mapping[str, str]
    model: str | None


class CheckOptions(CallOptions):
    """``amounts``: by meter; ``deadline_ms``: how long the agent may wait for room, 0 to 60000 (2000); ``priority``:
    ``interactive`` (default), or ``batch``, which leaves the others what a limit keeps for them."""

    amounts: NotRequired[Mapping[str, int]]
    deadline_ms: NotRequired[int | None]
    breakdown: NotRequired[bool]
    priority: NotRequired[str]


class ReserveOptions(CheckOptions):
    """``reservation``: its id (a new random one); ``estimates``: other amounts, held instead where a limit on the path
    asks for that estimate, ``p95`` or ``worst``; ``ttl_ms``: how long it lives, 1000 to 86400000 (600000)."""

    reservation: NotRequired[str | None]
    estimates: NotRequired[Mapping[str, Mapping[str, int]]]
    ttl_ms: NotRequired[int]


class Used(TypedDict, total=False):
    """What was really used: ``amounts`` by meter, or ``tokens`` by token class, which the agent sums into meters.

    ``usage_source``: ``provider`` (default), ``estimated`` or ``none``; ``outcome``: ``complete`` (default),
    ``aborted`` or ``error``.
    """

    amounts: Mapping[str, int]
    tokens: Mapping[str, int]
    usage_source: str
    outcome: str
    provider: str | None


class SettleOptions(Used):
    """``call``: whose call it was, so that an agent that lost its memory accounts for it all the same."""

    model: NotRequired[str | None]
    call: NotRequired[Call | None]


class RecordOptions(CallOptions, Used):
    """``event``: its id (a new random one); ``at_ms``: when it happened, milliseconds since 1970 (now)."""

    event: NotRequired[str | None]
    at_ms: NotRequired[int | None]


class UsageOptions(TypedDict, total=False):
    """``feature``: only limits that its calls touch; the others: whose counters are meant of limits that are kept for
    each user, workspace, role, API key or value of a tag."""

    feature: str | None
    user: str | None
    workspace: str | None
    role: str | None
    api_key: str | None
    tags: Mapping[str, str]
    deadline_ms: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """Whose call it is: the customer and feature, and who acts inside it."""

    customer: str
    feature: str
    user: str | None = None
    workspace: str | None = None
    role: str | None = None
    api_key: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None

    def as_map(self) -> dict[str, Any]:
        """The map on the wire."""
        said: dict[str, Any] = {"customer": self.customer, "feature": self.feature}
        subject = {name: value for name in _SUBJECT if (value := getattr(self, name)) is not None}
        if subject:
            said["subject"] = subject
        if self.tags:
            said["tags"] = dict(self.tags)
        if self.model is not None:
            said["model"] = self.model
        return said


_SUBJECT = ("user", "workspace", "role", "api_key")


@dataclass(slots=True)
class Request:
    """A request as it goes on the wire, but for its id.

    Attributes:
        fields: with ``op`` first; whoever sends it adds the ``id``.
        kind: of the answer that belongs to it.
        waits: the agent may wait before it answers (``deadline_ms``).
    """

    fields: dict[str, Any]
    kind: str
    waits: bool = False


def new_id() -> str:
    """A random id for a reservation or an event."""
    return secrets.token_hex(16)


def check(customer: str, feature: str, **options: Unpack[CheckOptions]) -> Request:
    """May this call go ahead?"""
    wanted: dict[str, Any] = dict(options)
    fields = {"op": "check", "call": _call(customer, feature, wanted).as_map()}
    return _finished(fields, wanted, "decision", waits=True)


def reserve(call: Call, reservation: str, options: Mapping[str, Any]) -> Request:
    """Hold amounts for a call in flight."""
    fields = {"op": "reserve", "reservation": reservation, "call": call.as_map()}
    return _finished(fields, dict(options), "decision", waits=True)


def split_reserve(customer: str, feature: str, options: ReserveOptions) -> tuple[Call, str, dict[str, Any]]:
    """Whose call it is, the reservation's id (made where none was given), and the rest of the options."""
    wanted: dict[str, Any] = dict(options)
    call = _call(customer, feature, wanted)
    return call, wanted.pop("reservation", None) or new_id(), wanted


def extend(reservation: str, amounts: Mapping[str, int], ttl_ms: int | None, deadline_ms: int) -> Request:
    """Hold so that ``amounts`` are held in all."""
    fields: dict[str, Any] = {"op": "extend", "reservation": reservation, "amounts": dict(amounts)}
    return _finished(fields, {"ttl_ms": ttl_ms, "deadline_ms": deadline_ms or None}, "decision", waits=False)


def settle(reservation: str, **used: Unpack[SettleOptions]) -> Request:
    """What a reservation really used."""
    wanted: dict[str, Any] = dict(used)
    call = wanted.pop("call", None)
    request = _finished({"op": "settle", "reservation": reservation}, wanted, "recorded")
    if call is not None:
        request.fields["call"] = call.as_map()
    return request


def release(reservation: str) -> Request:
    """The call did not happen."""
    return Request({"op": "release", "reservation": reservation}, "recorded")


def begin(call: Call, reservation: str, sent_to: Mapping[str, Any], piece: bytes, offset: int = 0) -> Request:
    """A model call is about to be sent. ``sent_to``: provider, path, content type, size and the like."""
    fields = {"op": "begin", "reservation": reservation, "call": call.as_map(), **sent_to}
    if piece:
        fields["body"] = piece
    if offset:
        fields["offset"] = offset
    return Request(fields, "decision", waits=True)


def feed(reservation: str, answer: Mapping[str, Any]) -> Request:
    """Bytes of a model call's answer: ``body``, ``offset`` and ``headers``."""
    return Request({"op": "feed", "reservation": reservation, **answer}, "taken")


def end(reservation: str, status: int | None, answer: Mapping[str, Any], *, whole: bool, sent: bool) -> Request:
    """A model call has ended."""
    fields = {"op": "end", "reservation": reservation, **answer}
    if status is not None:
        fields["status"] = status
    if not whole:
        fields["whole"] = False
    if not sent:
        fields["sent"] = False
    return Request(fields, "recorded")


def record(customer: str, feature: str, **options: Unpack[RecordOptions]) -> Request:
    """Usage that nobody reserved."""
    wanted: dict[str, Any] = dict(options)
    event = wanted.pop("event", None) or new_id()
    fields = {"op": "record", "event": event, "call": _call(customer, feature, wanted).as_map()}
    return _finished(fields, wanted, "recorded")


def usage(customer: str, **options: Unpack[UsageOptions]) -> Request:
    """How the limits of a customer stand."""
    return _finished({"op": "usage", "customer": customer}, dict(options), "usage", waits=True)


def status() -> Request:
    """How the agent itself is."""
    return Request({"op": "status"}, "status")


def _call(customer: str, feature: str, wanted: dict[str, Any]) -> Call:
    return Call(customer, feature, **{name: wanted.pop(name) for name in _CALL_OPTIONS if name in wanted})


_CALL_OPTIONS = (*_SUBJECT, "tags", "model")
_ORDER = (
    "feature", "user", "workspace", "role", "api_key", "tags", "amounts", "estimates", "tokens", "at_ms", "ttl_ms",
    "usage_source", "outcome", "model", "provider", "deadline_ms", "breakdown", "priority",
)  # fmt: skip
_DEFAULTS = {"usage_source": "provider", "outcome": "complete", "breakdown": False, "priority": "interactive"}


def _finished(fields: dict[str, Any], wanted: dict[str, Any], kind: str, *, waits: bool = False) -> Request:
    for name in _ORDER:
        value = wanted.pop(name, None)
        if value is None or value == _DEFAULTS.get(name):
            continue
        if isinstance(value, Mapping):
            if value:
                fields[name] = dict(value)
        else:
            fields[name] = value
    if wanted:
        raise TypeError(f"{fields['op']}() got an unexpected keyword argument {next(iter(wanted))!r}")
    return Request(fields, kind, waits)
