"""Usage from elsewhere over HTTP as OpenTelemetry spans: OTLP, in protobuf or JSON, with its partial success."""

from __future__ import annotations

from collections import Counter
from typing import Any

from anyio import to_thread
from google.protobuf import json_format
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from control_plane.access import SENDERS
from control_plane.api.context import Context
from control_plane.api.crowds import turns
from control_plane.api.ingest import ANSWERS, AT_ONCE_MAX, COUNTED, JSON, TAGS, WAITING_MAX
from control_plane.api.media import described
from control_plane.api.metrics import Metrics
from control_plane.api.pieces import Done, in_pieces
from control_plane.api.span_reading import Reading, read_spans
from control_plane.api.unpacking import check_encoding, unpacked
from control_plane.operations.accept_spans import SpanCall, accept_spans
from control_plane.operations.correct_usage import Item, ItemResult
from control_plane.operations.enter_corrections import SPANS
from protocol.violations import Violation

PROTOBUF = "application/x-protobuf"
BYTES_MAX = 4 * 1024 * 1024
PLAIN_BYTES_MAX = 8 * 1024 * 1024
"""When it is unpacked."""
REASONS_MAX = 10


@post("/v1/traces", opt=SENDERS, tags=TAGS, status_code=200, responses=ANSWERS, request_max_body_size=BYTES_MAX,
      operation_class=described({PROTOBUF: bytes, JSON: dict[str, Any]}))  # fmt: skip
async def post_traces(request: Request[Any, Any, Any], context: NamedDependency[Context]) -> Response[bytes]:
    """Take in usage that no agent saw, as OpenTelemetry spans of model calls (OTLP/HTTP). Each call is counted once, by
    trace and span; spans that tell of none are passed over. Those that are not counted are in the partial success."""
    limiter = turns(request.app.state, "ingest", AT_ONCE_MAX, WAITING_MAX, "senders of usage")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "")
    if kind not in {PROTOBUF, JSON}:
        raise HTTPException(status_code=415, detail=f"This path takes OTLP spans: {PROTOBUF} or {JSON}.")
    check_encoding(encoding)
    body = await request.body()

    def work() -> bytes:
        reading = read_spans(unpacked(body, encoding, PLAIN_BYTES_MAX), context.now_ms, json=kind == JSON)
        return _take(context, reading, request.app.state.metrics, json=kind == JSON)

    return Response(await to_thread.run_sync(work, limiter=limiter), media_type=kind)


def _take(context: Context, reading: Reading, metrics: Metrics, *, json: bool) -> bytes:
    calls: list[SpanCall | Violation] = reading.calls

    def accept(connection: Any, some: Any, author: Any) -> Done:
        return accept_spans(connection, some, reading.parents, author)

    items, entered = in_pieces(context, calls, accept)
    results = Counter(_result(item).value for item in items)
    metrics.count(SPANS, results, entered)
    refused = [
        item.message if isinstance(item, Violation) else f"{item.event}: {item.result.value}: {item.detail}"
        for item in items
        if _result(item) not in COUNTED
    ]
    answer = ExportTraceServiceResponse()
    if refused:
        answer.partial_success.rejected_spans = len(refused)
        reasons = list(dict.fromkeys(refused))
        more = [f"and {len(reasons) - REASONS_MAX} other reasons"] if len(reasons) > REASONS_MAX else []
        answer.partial_success.error_message = "; ".join([*reasons[:REASONS_MAX], *more])
    if json:
        return str(json_format.MessageToJson(answer, indent=None)).encode()
    whole: bytes = answer.SerializeToString()
    return whole


def _result(item: Item | Violation) -> ItemResult:
    return ItemResult.REJECTED if isinstance(item, Violation) else item.result


OTLP_HANDLERS = [post_traces]
