"""CloudEvents 1.0 as calls: reads one event, or one of a batch, and names it by its source and id.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec

from control_plane.api.instants import Instant, instant_ms
from control_plane.core.reconciliation import EARLY_MS_MAX
from control_plane.operations.price_missed import Missed
from protocol.codec import JsonDecoder
from protocol.events import Outcome, Subject, UsageSource
from protocol.ids import Key, ModelName, Tags, is_key
from protocol.units import TOKEN_CLASSES, Amounts
from protocol.violations import Violation

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
READABLE_MAX = 94
"""Ids up to here are seen in the names of their events; 33 letters are the source's."""


class UsageData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a call used, as ``data`` of a CloudEvent.

    Attributes:
        customer: instead of the CloudEvent's ``subject``.
        tokens: by token class, disjoint; ``amounts``: other meters. subject: who acted inside the customer.
    """

    feature: Key
    customer: Key | None = None
    amounts: Amounts = {}
    tokens: Amounts = {}
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None
    provider: Key | None = None
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: Outcome = Outcome.COMPLETE


class CloudEvent(msgspec.Struct, frozen=True):
    """One CloudEvent; attributes that it has beside these (extensions) mean nothing here.

    Attributes:
        source, id: together its identity. time: when the call happened; now, where it is not said.
        subject: the customer, unless ``data`` names it.
    """

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    data: UsageData
    subject: Text | None = None
    time: Instant | None = None
    datacontenttype: Text | None = None


class Named(msgspec.Struct, frozen=True):
    """What an event that cannot be read is called, as far as that can."""

    id: Any = None
    source: Any = None


class Told(msgspec.Struct, frozen=True):
    """A call that a CloudEvent tells of."""

    customer: str
    call: Missed


_decode = JsonDecoder(CloudEvent)
_any = JsonDecoder(dict[str, Any])
_named = msgspec.json.Decoder(Named)
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")


def read_event(body: bytes, now_ms: int, *, foreign: bool) -> Told:
    """The call that one event in JSON tells of. Raises: Violation: it is none that can be.

    Args:
        foreign: its ``data`` is of any sort (:func:`usage_of`).
    """
    event = _decode(_with_usage(body) if foreign else body)
    kind = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Violation("datacontenttype", f"is {kind[:80]!r}", "application/json, or none")
    data = event.data
    customer = data.customer or event.subject
    if customer is None:
        raise Violation("subject", "is missing", "the customer, here or as data.customer")
    if not is_key(customer):
        raise Violation("subject", f"is {customer[:80]!r}, which names no customer", "a customer's key")
    at_ms = now_ms if event.time is None else instant_ms(event.time, "time")
    if at_ms > now_ms + EARLY_MS_MAX:
        raise Violation("time", "is an instant to come", "one that has passed")
    call = Missed(
        event=event_name(event.source, event.id),
        feature=data.feature,
        at_ms=at_ms,
        amounts=data.amounts,
        tokens=data.tokens,
        subject=data.subject,
        tags=data.tags,
        model=data.model,
        provider=data.provider,
        usage_source=data.usage_source,
        outcome=data.outcome,
    )
    return Told(customer, call)


def event_name(source: str, id_: str) -> str:
    """What the event is called in the ledger: its id, so that people find it, and a digest of its source; of ids that
    cannot be in a name, a digest of both. Two events have the same name only if they have the same source and id."""
    if is_key(id_) and len(id_) <= READABLE_MAX:
        return f"{id_}@{blake2b(source.encode(), digest_size=16).hexdigest()}"
    both = msgspec.json.encode((source, id_))
    return f"cloudevent~{blake2b(both, digest_size=16).hexdigest()}"


def names_of(body: bytes) -> tuple[str | None, str | None]:
    """Source and id of an event that cannot be read, where those can."""
    try:
        said = _named.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, None
    source, id_ = (one[:1_024] if isinstance(one, str) else None for one in (said.source, said.id))
    return source, id_


def from_binary(headers: Mapping[str, str], body: bytes) -> bytes:
    """An event in binary mode (attributes in ``ce-`` headers, data in the body), as JSON. Raises: Violation."""
    said: dict[str, Any] = {}
    for name in _ATTRIBUTES:
        if (value := headers.get(f"ce-{name}")) is not None:
            said[name] = unquote(value)
    try:
        said["data"] = msgspec.json.decode(body) if body else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Violation("data", "is not JSON", "a JSON object as the body") from None
    return msgspec.json.encode(said)


def _with_usage(body: bytes) -> bytes:
    event = _any(body)
    if isinstance(event.get("data"), dict | None) and isinstance(event.get("type"), str):
        event["data"] = usage_of(event["type"], event.get("data") or {})
    return msgspec.json.encode(event)


def usage_of(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """What data of any sort says, as :class:`UsageData`: fields of ours mean what they mean here, and any other number
    is of the meter of that name; other texts say nothing. The feature is the event's type, unless data says it. A
    number called ``tokens`` is of the token class that ``type`` names. Raises: Violation: a value that is neither."""
    said: dict[str, Any] = {"feature": kind}
    amounts: dict[str, Any] = {}
    part = data.get("type")
    for name, value in data.items():
        if name == "tokens" and _is_number(value) and isinstance(part, str) and part in TOKEN_CLASSES:
            said["tokens"] = {part: value}
        elif _is_number(value):
            amounts[name] = value
        elif name in UsageData.__struct_fields__:
            said[name] = value
        elif not isinstance(value, str | None):
            raise Violation(f"data.{name[:80]}", f"is {value!r:.80}", "a whole number of a meter, or a text")
    if amounts:
        own = said.get("amounts", {})
        said["amounts"] = {**amounts, **own} if isinstance(own, dict) else own
    return said


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
