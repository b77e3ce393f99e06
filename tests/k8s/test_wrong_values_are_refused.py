"""A value that is unknown, out of bounds or at odds with another is refused: where, and what would be right."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

SQLITE_TWICE = {"controlPlane": {"replicas": 2}}
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no replicas": ({"controlPlane": {"replicas": 0}}, ["/controlPlane/replicas", "minimum: got 0, want 1"]),
    "replicas in words": ({"controlPlane": {"replicas": "two"}}, ["/controlPlane/replicas", "want integer"]),
    "two replicas on sqlite": (SQLITE_TWICE, ["controlPlane.replicas is 2", "database.kind", "postgresql"]),
    "unknown key": ({"controlplane": {}}, ["controlplane", "not allowed"]),
    "unknown key inside": ({"agent": {"daemonset": {}}}, ["/agent", "daemonset", "not allowed"]),
    "unknown database": ({"database": {"kind": "mysql"}}, ["/database/kind", "'sqlite', 'postgresql'"]),
    "postgresql nowhere": ({"database": {"kind": "postgresql"}}, ["database.existingSecret is empty", "postgresql://"]),
    "sqlite with a url": ({"database": {"existingSecret": "x"}}, ["database.existingSecret is set", "postgresql"]),
    "tls without certificate": ({"tls": {"enabled": True}}, ["tls.secretName is empty", "control-plane.metering.svc"]),
    "certificate without tls": ({"tls": {"secretName": "x"}}, ["tls.enabled is false"]),
    "moving tag": ({"images": {"agent": {"tag": "latest"}}}, ["/images/agent/tag"]),
    "short digest": ({"images": {"agent": {"digest": "sha256:abc"}}}, ["/images/agent/digest", "does not match"]),
    "tag in the name": ({"images": {"agent": {"repository": "agent:1"}}}, ["/images/agent/repository"]),
    "privileged port": ({"controlPlane": {"port": 80}}, ["/controlPlane/port", "minimum: got 80, want 1,024"]),
    "kept too short": ({"controlPlane": {"retentionDays": 7}}, ["/controlPlane/retentionDays", "got 7, want 45"]),
    "wrong unit": ({"database": {"volume": {"size": "10Go"}}}, ["/database/volume/size", "does not match"]),
    "no memory limit": (
        {"agent": {"sidecar": {"resources": {"limits": {"memory": None}}}}},
        ["/agent/sidecar/resources/limits", "memory"],
    ),
    "no time to stop": (
        {"agent": {"daemonSet": {"terminationGracePeriodSeconds": 1}}},
        ["/agent/daemonSet/terminationGracePeriodSeconds", "minimum: got 1, want 30"],
    ),
    "mode that is not octal": ({"agent": {"socketMode": "rw"}}, ["/agent/socketMode", "does not match"]),
    "relative directory": ({"agent": {"daemonSet": {"dataDir": "data"}}}, ["/agent/daemonSet/dataDir"]),
    "no node at a time": ({"agent": {"daemonSet": {"maxUnavailable": "0%"}}}, ["/agent/daemonSet/maxUnavailable"]),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_value_is_refused_with_its_name_and_what_is_right(chart, values, words):
    with pytest.raises(helm_python.HelmError) as refused:
        chart.render(values, name="allotment", namespace="metering")
    assert [word for word in words if word not in str(refused.value)] == []


def test_the_values_of_the_chart_are_all_in_its_schema(chart):
    def complain(values: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
        schema = chart.schema["definitions"].get(schema.get("$ref", "").rpartition("/")[2], schema)
        known = schema.get("properties", {})
        missing = [f"{path}.{key}" for key in values if known and key not in known]
        inside = [(v, known[k], f"{path}.{k}") for k, v in values.items() if isinstance(v, dict) and k in known]
        open_ended = [path] if known and schema.get("additionalProperties") is not False else []
        return missing + open_ended + [line for arguments in inside for line in complain(*arguments)]

    assert complain(chart.values, chart.schema, "") == []
