"""Metrics in Prometheus' text format: what ``status`` says, and what calls used by model and class.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.core.tally import Tally
from protocol.local_messages import StatusReport

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_DECISIONS = {"allowed": "allow", "throttled": "throttle", "blocked": "block"}
_GAUGES = ("waiting",)


def exposition(report: StatusReport, tally: Tally) -> bytes:
    """All metrics. Labels are names of models and of classes, which our wires bound, and words of ours."""
    return "\n".join([*_lines(report, tally), ""]).encode()


def _lines(report: StatusReport, tally: Tally) -> Iterator[str]:
    counters = dict(report.counters)
    yield from _head("decisions_total", "counter", "Decisions given.")
    for name, decision in _DECISIONS.items():
        yield f'allotment_agent_decisions_total{{decision="{decision}"}} {counters.pop(name, 0)}'
    for name in _GAUGES:
        yield from _one(name, "gauge", "Calls that wait for an answer.", counters.pop(name, 0))
    for name, count in counters.items():
        yield from _one(f"{name}_total", "counter", f"Since the start: {name.replace('_', ' ')}.", count)
    yield from _head("requests_total", "counter", "Requests of calls that have ended.")
    for (provider, model), count in tally.requests.items():
        yield f'allotment_agent_requests_total{{provider="{provider}",model="{model}"}} {count}'
    yield from _head("tokens_total", "counter", "Tokens of calls that have ended, by disjoint class.")
    for ((provider, model), part), count in tally.tokens.items():
        yield f'allotment_agent_tokens_total{{provider="{provider}",model="{model}",class="{part}"}} {count}'
    for name, text, value in (
        ("ready", "Whether it can decide.", int(report.state == "ready")),
        ("connected", "Whether the control plane answers.", int(report.control_plane.get("state") == "connected")),
        ("customers", "Customers that it knows.", report.customers),
        ("leases", "Leases that it holds.", report.leases),
        ("reservations", "Calls in flight.", report.reservations),
        ("outbox_events", "Events that the control plane has not confirmed.", report.outbox_events),
        ("oldest_unsent_seconds", "Age of the oldest of these.", report.oldest_unsent_ms / 1_000),
        ("connections", "Open connections.", report.connections),
        ("uptime_seconds", "Since the start.", report.uptime_ms / 1_000),
    ):
        yield from _one(name, "gauge", text, value)


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"allotment_agent_{name} {value}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP allotment_agent_{name} {text}"
    yield f"# TYPE allotment_agent_{name} {kind}"
