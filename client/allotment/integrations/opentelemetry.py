"""An OpenTelemetry span processor that counts what spans of model calls say was used: usage that nobody reserved.

``provider.add_span_processor(AllotmentSpanProcessor(feature="chat"))``. It never refuses a call and never waits for
one: who wants limits to hold uses another way in. A span that is not sampled is not seen, and so not counted.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from allotment.attribution import Attribution, attribution
from allotment.blocking import Client
from allotment.errors import AgentUnavailable, AllotmentError
from allotment.integrations.spans import (
    PREFIX,
    TAG,
    WHOSE,
    Node,
    answer_of,
    event_of,
    is_call,
    model_of,
    provider_of,
    tokens_of,
)

_log = logging.getLogger("allotment")

QUEUE_MAX = 10_000
"""How many events wait at most; what comes when so many do is not counted, and that is logged."""

LIVE_MAX = 100_000
"""How many spans on their way are known; the oldest beyond are told apart no longer from what they describe."""

RETRY_S = 1.0
"""How long to wait for an agent that is away, before asking again."""

FLUSH_MS = 30_000


class AllotmentSpanProcessor(SpanProcessor):
    """Counts each call of a model once: by the innermost span that says what it used, named by its trace and span id.

    Whose call it was is said by attributes of the span (``allotment.customer``, ``allotment.feature``, likewise
    ``.user``, ``.workspace``, ``.role``, ``.api_key`` and ``allotment.tag.NAME``), by baggage of the same names, by the
    block of ``allotment.attributed`` that it began in, by a span around it, or by the arguments. What names no customer
    or feature is not counted, and logged.

    Args:
        customer, feature, tags: of calls that say none.
        client: who asks the agent.

    Attributes:
        recorded: calls that are on the agent's disk; ``described``: spans that told of a call which another had told.
        dropped: calls that were not counted, because nobody was named, the agent said no, or too many waited.
    """

    def __init__(
        self,
        *,
        customer: str | None = None,
        feature: str | None = None,
        tags: Mapping[str, str] | None = None,
        client: Client | None = None,
    ) -> None:
        self._usual = _named(Attribution(customer, feature, tags=tags or {}))
        self._client = client or Client()
        self._begin()
        again = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (begin := again()) and begin())

    def _begin(self) -> None:
        """Nothing waits; in a forked child it is the parent who sends what waited there."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._live: dict[int, Node] = {}
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(QUEUE_MAX)
        self._thread: threading.Thread | None = None
        self.recorded = self.described = self.dropped = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remembers the span, and what its context says."""
        said = _named(attribution()) | {
            name: str(value) for name, value in baggage.get_all(parent_context).items() if name.startswith(PREFIX)
        }
        with self._lock:
            around = self._live.get(span.parent.span_id) if span.parent is not None else None
            self._live[span.context.span_id] = Node(span, around, said)
            if len(self._live) > LIVE_MAX:
                self._live.pop(next(iter(self._live)))

    def on_end(self, span: ReadableSpan) -> None:
        """Counts what it says was used; never waits, and never raises."""
        try:
            self._count(span)
        except Exception:  # noqa: BLE001 - a span is worth less than the program that is traced
            _log.exception("allotment: a span could not be counted")

    def _count(self, span: ReadableSpan) -> None:
        attributes = span.attributes or {}
        with self._lock:
            node = self._live.pop(span.context.span_id, None) or Node(span, None, {})
            if not is_call(attributes):
                return
            answer = answer_of(attributes)
            if node.described(answer):
                self.described += 1
                return
        whose = node.whose(attributes, self._usual)
        if "customer" not in whose or "feature" not in whose:
            self._drop("it names no allotment.customer or no allotment.feature", span.name)
            return
        failed = attributes.get("error.type") is not None or span.status.status_code is StatusCode.ERROR
        event = whose | {
            "event": event_of(span, answer),
            "at_ms": (span.end_time or time.time_ns()) // 1_000_000,
            "tokens": tokens_of(attributes),
            "model": model_of(attributes),
            "provider": provider_of(attributes),
            "outcome": "error" if failed else "complete",
        }
        if self._closed.is_set():
            self._drop("the processor was shut down", span.name)
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._drop(f"{QUEUE_MAX} others wait", span.name)
            return
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="allotment-spans", daemon=True)
                self._thread.start()

    def force_flush(self, timeout_millis: int = FLUSH_MS) -> bool:
        """Waits until all that has ended is recorded; False: not within that time."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            return waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, timeout_millis / 1_000)

    def shutdown(self) -> None:
        """Waits as ``force_flush`` does; what the agent has not taken by then is lost, and logged."""
        whole = self.force_flush()
        self._closed.set()
        if not whole:
            _log.error("allotment: %d calls could not be counted: no agent", self._waiting.unfinished_tasks)

    def _send_all(self) -> None:
        waiting = self._waiting
        while True:
            event = waiting.get()
            try:
                self._send(event)
            finally:
                waiting.task_done()

    def _send(self, event: dict[str, Any]) -> None:
        while not self._closed.is_set():
            try:
                self._client.record(**event)
            except AgentUnavailable:
                self._closed.wait(RETRY_S)  # the same event again: however often it is said, it counts once
            except AllotmentError as error:
                self._drop(str(error), event["event"])
                return
            else:
                self.recorded += 1
                return

    def _drop(self, why: str, what: str) -> None:
        self.dropped += 1
        _log.warning("allotment: %s is not counted: %s", what, why)


def _named(said: Attribution) -> dict[str, str]:
    """By the names that attributes have."""
    found = {PREFIX + name: value for name in WHOSE if (value := getattr(said, name)) is not None}
    return found | {TAG + name: value for name, value in said.tags.items()}
