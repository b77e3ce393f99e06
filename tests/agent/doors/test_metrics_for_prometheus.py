"""What the agent counts, as Prometheus reads it: by model and class, bounded, and without customers."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as parse

from agent.core.tally import MODELS_MAX, OTHER, Tally
from protocol.events import UsageEvent

CALL = {"customer": "acme", "feature": "chat", "subject": {"user": "ann"}}


def samples(way) -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    (response,) = way.http().get("/metrics")
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = response.body.decode()
    assert "acme" not in text
    families = list(parse(text))
    assert all(family.documentation and family.type in {"counter", "gauge"} for family in families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_calls_are_counted_by_model_and_class_and_a_repeat_only_once(way) -> None:
    before = samples(way)
    said = {
        "event": "e1", "call": {**CALL, "model": "gpt-4o"}, "provider": "openai",
        "tokens": {"input": 90, "cache_read": 10, "output": 5},
    }  # fmt: skip
    for _ in range(2):
        http = way.http()
        answered = http.post("/v1/record", said)
        way.catch_up()
        (answer,) = answered or http.responses()
        assert answer.status == 200
    found = samples(way)
    told = {key[1:]: value for key, value in found.items() if key[0] == "allotment_agent_tokens_total"}
    assert told == {
        ("openai", "gpt-4o", "input"): 90,
        ("openai", "gpt-4o", "cache_read"): 10,
        ("openai", "gpt-4o", "output"): 5,
    }
    assert found["allotment_agent_requests_total", "openai", "gpt-4o"] == 1
    assert found["allotment_agent_recorded_total",] == before["allotment_agent_recorded_total",] + 1
    assert ("allotment_agent_decisions_total", "block") in found
    assert found["allotment_agent_leases",] >= 0


def test_series_are_bounded_and_corrections_change_none() -> None:
    tally = Tally()
    for number in range(MODELS_MAX + 50):
        tally.add(UsageEvent(f"e{number}", "acme", "chat", 0, {"requests": 1, "input_tokens": 2}, model=f"m{number}"))
    tally.add(UsageEvent("e", "acme", "chat", 0, {"requests": 1, "input_tokens": 2}))
    tally.add(UsageEvent("e~1", "acme", "chat", 0, {"input_tokens": -2}, corrects="e"))
    assert len(tally.requests) == MODELS_MAX + 1
    assert tally.requests[OTHER, OTHER] == 51
    assert sum(tally.tokens.values()) == 2 * (MODELS_MAX + 51)


def test_only_reading_is_possible_and_only_for_local_names(way) -> None:
    (refused,) = way.http().post("/metrics", {})
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    (refused,) = way.http(guarded=True).get("/metrics", host="evil.example")
    assert refused.status == 421
