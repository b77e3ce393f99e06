"""OTLP's bytes as calls: spans in protobuf or JSON.

https://github.com/open-telemetry/opentelemetry-proto/blob/main/docs/specification.md
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from control_plane.core import spans
from control_plane.core.reconciliation import EARLY_MS_MAX
from control_plane.core.spans import Attributes, SpanName, Value
from control_plane.operations.accept_spans import SpanCall
from control_plane.operations.price_missed import Missed
from protocol.events import Outcome, Subject
from protocol.violations import Violation

CALLS_MAX = 10_000
"""In one request: more than a collector's batch."""

_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}\Z")
_SPAN = re.compile(r"(?!0{16})[0-9a-f]{16}\Z")
_object = msgspec.json.Decoder(dict[str, Any]).decode
_ERROR = 2  # of a span's status


@dataclass
class Reading:
    """What a request tells. ``parents``: by trace, its spans and the span around each."""

    calls: list[SpanCall | Violation] = field(default_factory=list)
    parents: dict[str, dict[str, str]] = field(default_factory=dict)


def read_spans(plain: bytes, now_ms: int, *, json: bool) -> Reading:
    """The calls that spans tell of. Spans that tell of none are passed over; whether calls can be is said of each.

    Raises: Violation: it is no such message at all.
    """
    message = _message(plain, json=json)
    reading = Reading()
    for group in message.resource_spans:
        resource = _attributes(group.resource.attributes)
        for span in (span for scope in group.scope_spans for span in scope.spans):
            trace, here, parent = (_hex(part, json=json) for part in (span.trace_id, span.span_id, span.parent_span_id))
            reading.parents.setdefault(trace, {})[here] = parent
            attributes = _attributes(span.attributes)
            if spans.is_call(attributes):
                try:
                    reading.calls.append(_call(span, (trace, here, parent), resource | attributes, now_ms))
                except Violation as wrong:
                    reading.calls.append(wrong)
    if len(reading.calls) > CALLS_MAX:
        raise Violation("", f"has spans of {len(reading.calls)} calls", f"at most {CALLS_MAX}")
    reading.calls.sort(key=lambda call: _order(call, reading.parents))
    return reading


def _order(call: SpanCall | Violation, parents: dict[str, dict[str, str]]) -> tuple[str, int]:
    """Not all may be entered in one transaction: what is inside another must not come after it."""
    return ("", 0) if isinstance(call, Violation) else spans.innermost_first(call.name, parents[call.name.trace])


def _message(plain: bytes, *, json: bool) -> Any:
    message = ExportTraceServiceRequest()
    try:
        if json:
            json_format.ParseDict(_object(plain), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(plain)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError, ValueError):
        kind = "JSON" if json else "protobuf"
        raise Violation("", f"is no OTLP request in {kind}", "an ExportTraceServiceRequest") from None
    return message


def _hex(part: bytes, *, json: bool) -> str:
    """An id in hexadecimal. In JSON it is written so, which the parser of protobuf takes for base64: taken back."""
    return (base64.b64encode(part).decode() if json else part.hex()).lower()


def _attributes(pairs: Iterable[Any]) -> dict[str, Value]:
    """Those that may mean something here: no content of calls is looked at."""
    return dict(_values(pair for pair in pairs if pair.key.startswith(spans.READ)))


def _values(pairs: Iterable[Any]) -> Iterator[tuple[str, Value]]:
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in {"string_value", "bool_value", "int_value", "double_value"}:
            yield pair.key, getattr(pair.value, kind)


def _call(span: Any, ids: tuple[str, str, str], said: Attributes, now_ms: int) -> SpanCall:
    trace, here, parent = ids
    for field_name, value, pattern in (("trace_id", trace, _TRACE), ("span_id", here, _SPAN)):
        if not pattern.match(value):
            raise Violation(field_name, f"is {value[:40]!r}", "what W3C trace context says, not all zero")
    parent = parent if _SPAN.match(parent) else ""
    customer, feature = _needed(said, spans.CUSTOMER), _needed(said, spans.FEATURE)
    at_ms = span.end_time_unix_nano // 1_000_000 or now_ms
    if at_ms > now_ms + EARLY_MS_MAX:
        raise Violation("end_time_unix_nano", "is an instant to come", "one that has passed")
    name = SpanName(trace, here, parent, spans.response_digest(said))
    call = Missed(
        event=name.event,
        feature=feature,
        at_ms=at_ms,
        tokens=spans.tokens_of(said),
        subject=Subject(*(spans.key_of(said, f"allotment.{one}", f"allotment.{one}") for one in spans.SUBJECTS)),
        tags=spans.tags_of(said),
        model=spans.model_of(said),
        provider=spans.provider_of(said),
        outcome=Outcome.ERROR if span.status.code == _ERROR or spans.FAILURE in said else Outcome.COMPLETE,
    )
    return SpanCall(customer, name, call)


def _needed(said: Attributes, name: str) -> str:
    value = spans.key_of(said, name, name)
    if value is None:
        raise Violation(name, "is missing", "an attribute of the span or of its resource")
    return value
