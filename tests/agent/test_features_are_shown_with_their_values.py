"""What a widget is told of features: their value, or whether they are on."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.operations.report_usage import report_usage
from protocol.entitlements import Feature, FeatureKind, RoleTerms
from protocol.local_messages import Usage, UsageReport

SETTINGS = {"sizes": [512, 1024], "quality": 0.8, "watermark": None}
FEATURES = (
    Feature("chat", FeatureKind.METERED),
    Feature("export", FeatureKind.BOOLEAN, enabled=False),
    Feature("settings", FeatureKind.STATIC, value=SETTINGS, by_role={"intern": RoleTerms(value=[512])}),
    Feature("history", FeatureKind.STATIC, value=0),
    Feature("voice", FeatureKind.STATIC, enabled=False, value="loud"),
)


def shown(bench: Any, role: str | None = None) -> dict[str, Any]:
    bench.lender.entitlements["acme"] = msgspec.structs.replace(bench.entitle(), features=FEATURES)
    bench.books.look_again.add("acme")
    bench.sync()
    report = report_usage(bench.books, Usage(customer="acme", role=role), bench.now_ms, bench.now_ms)
    assert isinstance(report, UsageReport)
    return report.features


def test_values_are_shown_as_they_are_set(bench: Any) -> None:
    assert shown(bench) == {"chat": True, "export": False, "settings": SETTINGS, "history": 0, "voice": False}


def test_values_of_a_role_are_shown_to_that_role(bench: Any) -> None:
    assert shown(bench, "intern")["settings"] == [512]
