"""What comes in goes out as metrics: by model and class, in a bounded number of series, and never by customer."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from control_plane.api.metrics import MODELS_MAX
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, UsageEvent
from protocol.uplink_messages import MSGPACK, SYNC_PATH, SyncRequest

BATCH = {"Content-Type": "application/cloudevents-batch+json"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Nothing here depends on the database."""
    return sqlite_url


@pytest.fixture
def admin(admin: Any) -> Any:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}]})
    admin.put("/v1/customers/acme-inc", {"name": "Acme"})
    admin.put("/v1/customers/acme-inc/subscription", {"plan": "pro"})
    return admin


def send(admin: Any, *events: dict[str, Any]) -> None:
    body = [
        {
            "specversion": "1.0",
            "source": "/x",
            "type": "llm.call",
            "subject": "acme-inc",
            "id": one.pop("id"),
            "data": one,
        }
        for one in [{"feature": "chat", **event} for event in events]
    ]
    assert admin("POST", "/v1/events", content=json.dumps(body), headers=BATCH).status_code == 200


def samples(caller: Any) -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    answer = caller("GET", "/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }


def test_tokens_are_told_by_model_and_class_whatever_brought_them(
    admin: Any, client: Any, tokens: Any, clock: Any
) -> None:
    how: dict[str, Any] = {"model": "gpt-4o", "provider": "openai"}
    call = {"id": "a", "tokens": {"input": 90, "cache_read": 10, "output": 5, "reasoning": 2}, **how}
    send(admin, call, dict(call), {"id": "b", "amounts": {"input_tokens": 7}, **how}, {"id": "c", "feature": "chess"})
    send(admin, {"id": "d", "tokens": {"input": 1}})
    uploaded = [
        UsageEvent(
            "u", "acme-inc", "chat", clock.now_ms(), {"requests": 1, "input_tokens": 50, "output_tokens": 0}, **how
        ),
        UsageEvent("u~1", "acme-inc", "chat", clock.now_ms(), {"input_tokens": -40}, corrects="u", **how),
        UsageEvent("v", "nobody", "chat", clock.now_ms(), {"requests": 1}),
    ]
    body = encode_msgpack(uploaded)
    batch = EventBatch(1, 1, len(uploaded), crc32(body), body)
    request = encode_msgpack(SyncRequest("journal", 1, "nonce", snapshot=True, batches=(batch,)))
    agent = type(admin)(client, tokens.agent)
    for _ in range(2):
        assert agent("POST", SYNC_PATH, content=request, headers={"Content-Type": MSGPACK}).status_code == 200
    found = samples(admin)
    told = {key[1:]: value for key, value in found.items() if key[0] == "allotment_tokens_total"}
    assert told == {
        ("input", "gpt-4o", "openai"): 147, ("cache_read", "gpt-4o", "openai"): 10, ("output", "gpt-4o", "openai"): 5,
        ("reasoning", "gpt-4o", "openai"): 2, ("input", "other", "other"): 1,
    }  # fmt: skip
    results = {key[1:]: value for key, value in found.items() if key[0] == "allotment_usage_events_total"}
    assert results == {
        ("accepted", "cloudevents"): 3, ("duplicate", "cloudevents"): 1, ("rejected", "cloudevents"): 1,
        ("accepted", "agents"): 2, ("unknown_customer", "agents"): 1,
    }  # fmt: skip
    assert found["allotment_requests_total", "gpt-4o", "openai"] == 3
    of_input = ("openai", "gpt-4o", "input")
    assert found["gen_ai_client_token_usage_sum", *of_input] == 157
    assert found["gen_ai_client_token_usage_count", *of_input] == 3


def test_series_are_bounded_and_neither_customers_nor_secrets_are_in_them(admin: Any, tokens: Any) -> None:
    send(admin, *({"id": str(at), "model": f"m{at}", "tokens": {"input": 1}} for at in range(MODELS_MAX + 50)))
    found = samples(admin)
    of_models = [key for key in found if key[0] == "allotment_tokens_total"]
    assert len(of_models) == MODELS_MAX + 1
    assert found["allotment_tokens_total", "input", "other", "other"] == 50
    text = admin("GET", "/metrics").text
    assert not [word for word in ("acme", *vars(tokens).values()) if word in text]


def test_who_scrapes_reads_metrics_and_nothing_else(admin: Any, client: Any, tokens: Any) -> None:
    send(admin, {"id": "a", "model": "gpt-4o", "tokens": {"input": 1}})
    scraper = type(admin)(client, tokens.metrics)
    assert samples(scraper)["allotment_tokens_total", "input", "gpt-4o", "other"] == 1
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = scraper("GET", "/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(answer.text)} >= {
        "allotment_tokens",
        "gen_ai_client_token_usage",
    }
    for path in ("/v1/customers", "/v1/usage", "/schema/openapi.json"):
        assert scraper("GET", path).status_code == 403
    assert client.get("/metrics").status_code == 401
    assert type(admin)(client, tokens.ingest)("GET", "/metrics").status_code == 403
