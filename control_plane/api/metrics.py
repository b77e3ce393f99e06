"""Metrics over HTTP: what usage this process has taken in, for Prometheus. No customer is ever a label."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from control_plane.access import WATCHERS
from protocol.events import UsageEvent
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKEN_CLASSES

MODELS_MAX = 100
"""Pairs of provider and model that are told apart; those that come later, and calls without a model, are ``other``."""
OTHER = "other"
_SUMS = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
BUCKETS = tuple(4**power for power in range(14))
"""Of OpenTelemetry's ``gen_ai.client.token.usage``: 1, 4, 16 and so on, to 67,108,864."""


class Metrics:
    """The counters of one process. Any thread may count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        model = ("provider", "model")
        self._events = Counter(
            "allotment_usage_events", "Usage events taken in, by what brought them and what became of them.",
            ("source", "result"), registry=self.registry,
        )  # fmt: skip
        self._requests = Counter(
            "allotment_requests", "Requests of accepted calls of models.", model, registry=self.registry
        )
        self._tokens = Counter(
            "allotment_tokens",
            "Tokens of accepted calls, by disjoint class.",
            (*model, "class"),
            registry=self.registry,
        )
        self._usage = Histogram(
            "gen_ai_client_token_usage", "Tokens of each accepted call, as OpenTelemetry's gen_ai.client.token.usage.",
            ("gen_ai_provider_name", "gen_ai_response_model", "gen_ai_token_type"), buckets=BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self._models: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def count(self, source: str, results: Mapping[str, int], accepted: Iterable[UsageEvent]) -> None:
        """Count what a request brought; to be called once it is committed.

        Args:
            results: how many events had which result. accepted: those that were; corrections change no count.
        """
        for result, number in results.items():
            self._events.labels(source, result).inc(number)
        for event in accepted:
            if event.corrects is None:
                self._count_call(event)

    def _count_call(self, event: UsageEvent) -> None:
        model = self._model(event)
        self._requests.labels(*model).inc(event.amounts.get(REQUESTS, 0))
        sums = {kind: event.amounts[meter] for kind, meter in _SUMS.items() if meter in event.amounts}
        for kind, tokens in sums.items():
            self._usage.labels(*model, kind).observe(tokens)
        # Without classes, all that is known is that they went in, or came out.
        for name, tokens in (event.tokens or sums).items():
            self._tokens.labels(*model, name if name in TOKEN_CLASSES else OTHER).inc(tokens)

    def _model(self, event: UsageEvent) -> tuple[str, str]:
        """Provider and model, as far as they are told apart: whatever callers say, series are bounded."""
        if event.model is None:
            return OTHER, OTHER
        model = (event.provider or OTHER, event.model)
        with self._lock:
            if model not in self._models and len(self._models) >= MODELS_MAX:
                return OTHER, OTHER
            self._models.add(model)
        return model


@get("/metrics", opt=WATCHERS, include_in_schema=False, sync_to_thread=True)
def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """All of them, in the format that is asked for: Prometheus' text, or OpenMetrics."""
    metrics: Metrics = request.app.state.metrics
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body: bytes = encode(metrics.registry)
    return Response(body, media_type=content_type)


METRICS_HANDLERS = [get_metrics]
