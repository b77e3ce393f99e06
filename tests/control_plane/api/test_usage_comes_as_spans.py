"""Usage from elsewhere as OpenTelemetry spans: each call counted once, whatever tells of it; OTLP's own answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from control_plane.api import pieces
from control_plane.api.otlp import BYTES_MAX, PLAIN_BYTES_MAX
from control_plane.operations.audit_books import check_books

PROTOBUF = {"Content-Type": "application/x-protobuf"}
CALL = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
USAGE = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20}
ACME = {"allotment.customer": "acme", "allotment.feature": "chat"}


both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test asks for both: most of this depends on no database."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    return url


class Telemetry:
    """An application with the OpenTelemetry SDK, whose spans are looked at instead of sent."""

    def __init__(self, now_ms: Callable[[], int], resource: dict[str, str]) -> None:
        self._now_ms = now_ms
        self._done = InMemorySpanExporter()
        provider = TracerProvider(resource=Resource(resource))
        provider.add_span_processor(SimpleSpanProcessor(self._done))
        self._tracer = provider.get_tracer("test")

    def span(self, attributes: dict[str, Any], inside: Any = None, *, failed: bool = False) -> Any:
        context = None if inside is None else set_span_in_context(inside)
        span = self._tracer.start_span("chat gpt-4o", context, attributes=attributes, start_time=1)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        return span

    def end(self, *spans: Any) -> Any:
        """End these, and return the request that exports them."""
        for span in spans:
            span.end(self._now_ms() * 1_000_000)
        request = encode_spans(self._done.get_finished_spans())
        self._done.clear()
        return request


@pytest.fixture
def admin(admin: Any) -> Any:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    limit = {"key": "tokens", "meter": "input_tokens", "amount": 10_000, "window": "month"}
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": [limit]})
    for customer in ("acme", "globex"):
        admin.put(f"/v1/customers/{customer}", {"name": customer})
        admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro"})
    return admin


@pytest.fixture
def export(client: Any, tokens: Any, admin: Any) -> Callable[..., tuple[int, str]]:
    """Export as a sender does. Returns how many spans were rejected, and why."""
    sender = type(admin)(client, tokens.ingest)

    def send(request: Any) -> tuple[int, str]:
        answer = sender("POST", "/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == PROTOBUF["Content-Type"]
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        return partial.rejected_spans, partial.error_message

    send.sender = sender  # type: ignore[attr-defined]
    return send


@pytest.fixture
def telemetry(clock: Any) -> Telemetry:
    return Telemetry(clock.now_ms, ACME)


def usages(admin: Any, customer: str = "acme") -> list[dict[str, Any]]:
    return [item["usage"] for item in admin.get(f"/v1/customers/{customer}/events")["items"]]


def requests(admin: Any) -> int:
    return len(usages(admin))


@both_databases
def test_a_span_counts_in_disjoint_classes_by_new_names_and_old(
    admin: Any, export: Any, telemetry: Telemetry, database: Any
) -> None:
    new = {
        **CALL, "gen_ai.response.model": "gpt-4o-2024-08-06", "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 30, "gen_ai.usage.cache_write.input_tokens": 20,
        "gen_ai.usage.audio.input_tokens": 5, "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.reasoning.output_tokens": 40, "allotment.user": "ann", "allotment.tag.team": "blue",
    }  # fmt: skip
    old = {
        "gen_ai.system": "anthropic", "gen_ai.request.model": "claude-sonnet-4", "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 7, "gen_ai.usage.cache_read_input_tokens": 90,
        "gen_ai.usage.cache_creation_input_tokens": 3,
    }  # fmt: skip
    assert export(telemetry.end(telemetry.span(new), telemetry.span(old, failed=True))) == (0, "")
    found = {usage["provider"]: usage for usage in usages(admin)}
    one, other = found["openai"], found["anthropic"]
    assert one["tokens"] == {
        "input": 45, "cache_read": 30, "cache_write": 20, "input_audio": 5, "output": 10, "reasoning": 40
    }  # fmt: skip
    assert one["amounts"] == {"requests": 1, "input_tokens": 100, "output_tokens": 50}
    assert (one["model"], one["subject"], one["tags"]) == ("gpt-4o-2024-08-06", {"user": "ann"}, {"team": "blue"})
    assert other["tokens"] == {"input": 10, "cache_read": 90, "cache_write": 3, "output": 7}, (
        "cached beside, not inside"
    )
    assert other["outcome"] == "error"
    assert admin.get("/v1/customers/acme/balances")["items"][0]["used"] == 203
    assert database.read(check_books) == []


def test_an_export_that_is_repeated_counts_once(admin: Any, export: Any, telemetry: Telemetry) -> None:
    request = telemetry.end(telemetry.span(CALL | USAGE), telemetry.span(CALL | USAGE))
    assert [export(request), export(request)] == [(0, ""), (0, "")]
    assert requests(admin) == 2


@both_databases
def test_a_framework_around_an_sdk_counts_once_whichever_comes_first(
    admin: Any, export: Any, telemetry: Telemetry, clock: Any
) -> None:
    def nested() -> tuple[Any, Any, Any]:
        outer = telemetry.span(CALL | USAGE)
        between = telemetry.span({"http.request.method": "POST"}, outer)
        return outer, between, telemetry.span({**CALL, **USAGE, "gen_ai.usage.input_tokens": 101}, between)

    outer, between, inner = nested()
    assert export(telemetry.end(inner, between, outer)) == (0, ""), "in one export the innermost counts"
    assert [usage["amounts"]["input_tokens"] for usage in usages(admin)] == [101]
    outer, between, inner = nested()
    export(telemetry.end(inner))
    export(telemetry.end(between, outer))
    assert requests(admin) == 2, "the framework's comes later, and the span between them with it"
    outer = telemetry.span(CALL | USAGE)
    inner = telemetry.span(CALL | USAGE, outer)
    export(telemetry.end(outer))
    export(telemetry.end(inner))
    assert requests(admin) == 3, "the framework's came first"


def test_retries_inside_a_framework_count_each_and_the_framework_not(
    admin: Any, export: Any, telemetry: Telemetry
) -> None:
    outer = telemetry.span(CALL | USAGE)
    attempts = [telemetry.span(CALL | USAGE, outer) for _ in range(3)]
    export(telemetry.end(*attempts, outer))
    assert requests(admin) == 3


def test_exports_too_large_for_one_transaction_are_cut_between_calls(
    admin: Any, export: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "TOGETHER_MAX", 2)
    outer = telemetry.span(CALL | USAGE)
    attempts = [telemetry.span(CALL | USAGE, outer) for _ in range(5)]
    assert export(telemetry.end(outer, *attempts)) == (0, "")
    assert requests(admin) == 5


@both_databases
def test_two_spans_of_one_answer_count_once_and_sums_of_agents_never(
    admin: Any, export: Any, telemetry: Telemetry
) -> None:
    agent = telemetry.span({**USAGE, "gen_ai.operation.name": "invoke_agent"})
    answer = {**CALL, **USAGE, "gen_ai.response.id": "chatcmpl-1"}
    export(telemetry.end(telemetry.span(answer, agent), telemetry.span(answer, agent)))
    export(telemetry.end(telemetry.span(answer, agent)))
    export(telemetry.end(agent))
    assert requests(admin) == 1
    export(telemetry.end(telemetry.span(answer)))
    assert requests(admin) == 2, "another trace is another call"


def test_what_cannot_count_is_told_as_partial_success_and_disturbs_nothing(
    admin: Any, export: Any, clock: Any, database: Any
) -> None:
    telemetry = Telemetry(clock.now_ms, {})
    spans = [
        telemetry.span({**CALL, **USAGE, **ACME, **more})
        for more in (
            {},
            {"allotment.customer": "a b"},
            {"allotment.customer": "nobody"},
            {"allotment.feature": "chess"},
            {"gen_ai.usage.input_tokens": -1},
            {"gen_ai.usage.output_tokens": "many"},
            {"allotment.user": "ann smith"},
        )
    ]
    rejected, message = export(telemetry.end(*spans, telemetry.span(CALL | USAGE), telemetry.span({"db.system": "x"})))
    assert rejected == 7
    for words in ("allotment.customer: is 'a b'", "unknown_customer", "feature: is 'chess'"):
        assert words in message, message
    assert requests(admin) == 1
    assert [one["code"] for one in admin.get("/v1/event-conflicts")["items"]] == ["unknown_customer"]
    clock.advance(-41 * 86_400_000)
    old = telemetry.end(telemetry.span({**CALL, **USAGE, **ACME}))
    clock.advance(41 * 86_400_000)
    rejected, message = export(old)
    assert (rejected, "late" in message) == (1, True)
    assert database.read(check_books) == []


def test_json_and_gzip_say_the_same_as_protobuf(admin: Any, export: Any, telemetry: Telemetry) -> None:
    request = telemetry.end(telemetry.span(CALL | USAGE))
    said = json_format.MessageToDict(request)
    for group in said["resourceSpans"]:
        for span in group["scopeSpans"][0]["spans"]:
            source = request.resource_spans[0].scope_spans[0].spans[0]
            span["traceId"], span["spanId"] = source.trace_id.hex(), source.span_id.hex()
            span["unknownField"] = 1
    packed = {"Content-Encoding": "gzip", **PROTOBUF}
    answer = export.sender("POST", "/v1/traces", json=said)
    assert (answer.status_code, answer.json()) == (200, {})
    body = gzip.compress(request.SerializeToString())
    assert export.sender("POST", "/v1/traces", content=body, headers=packed).status_code == 200
    assert requests(admin) == 1


def test_what_is_no_spans_at_all_is_refused_whole(export: Any) -> None:
    packed = {"Content-Encoding": "gzip", **PROTOBUF}
    as_json = {"Content-Type": "application/json"}
    bomb = gzip.compress(b"\x00" * (PLAIN_BYTES_MAX + 1))
    for content, headers, status in (
        (b"\xff\xff", PROTOBUF, 400),
        (b"{", as_json, 400),
        (b"[]", as_json, 400),
        (b'{"resourceSpans": 1}', as_json, 400),
        (b'{"a":' * 50_000, as_json, 400),
        (b"x", packed, 400),
        (gzip.compress(b"")[:-4], packed, 400),
        (bomb, packed, 400),
        (b"\x00" * (BYTES_MAX + 1), PROTOBUF, 413),
        (b"", {"Content-Type": "application/grpc"}, 415),
        (b"", {"Content-Encoding": "br", **PROTOBUF}, 415),
    ):
        answer = export.sender("POST", "/v1/traces", content=content, headers=headers)
        assert answer.status_code == status, (content[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert export.sender("POST", "/v1/traces", content=b"", headers=PROTOBUF).content == b""


def test_odd_ids_are_told_and_the_same_span_with_another_parent_is_no_other_call(admin: Any, export: Any) -> None:
    def span(trace: str, here: str, parent: str = "") -> dict[str, Any]:
        pairs = {**CALL, **USAGE, **ACME}
        attributes = [
            {"key": key, "value": {"intValue": value} if isinstance(value, int) else {"stringValue": value}}
            for key, value in pairs.items()
        ]
        return {"traceId": trace, "spanId": here, "parentSpanId": parent, "attributes": attributes}

    def send(*spans: Any) -> dict[str, Any]:
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
        answer = export.sender(
            "POST", "/v1/traces", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    trace, one, other = "5B8EFFF798038103D269B633813FC60C", "EEE19B7EC3C1B174", "EEE19B7EC3C1B173"
    refused = send(span("", one), span("0" * 32, one), span(trace, "xyz"), span(trace, "0" * 16))
    assert refused["partialSuccess"]["rejectedSpans"] == "4"
    circle = send(span(trace, one, other), span(trace, one, one), span(trace, one), span(trace.lower(), one, other))
    assert circle == {}
    assert send(span(trace, one)) == {}
    assert requests(admin) == 1
