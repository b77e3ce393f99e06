"""The chart, rendered by the real Helm library for every way of installing it that we promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

CHART = Path(__file__).parents[2] / "k8s" / "chart"

Values = dict[str, Any]
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]

NO_DAEMONS = {"daemonSet": {"enabled": False}}
POSTGRESQL = {"kind": "postgresql", "existingSecret": "allotment-database"}
TLS = {"enabled": True, "secretName": "allotment-tls"}
EVERYTHING: Values = {
    "fullnameOverride": "metering",
    "images": {"agent": {"repository": "registry.example:5000/allotment/agent", "digest": "sha256:" + "a" * 64}},
    "imagePullSecrets": [{"name": "registry"}],
    "tokens": {
        "admin": {"existingSecret": "admin-token", "key": "admin.token"},
        "join": {"existingSecret": "join-token", "key": "value"},
    },
    "tls": {**TLS, "caSecretName": "authority", "caKey": "root.pem"},
    "database": {**POSTGRESQL, "key": "uri"},
    "controlPlane": {
        "replicas": 3,
        "host": "::",
        "port": 9443,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "platform"},
        "tolerations": [{"key": "platform", "operator": "Exists"}],
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example/internal": "true"}},
    },
    "agent": {
        "daemonSet": {
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "maxUnavailable": 1,
            "priorityClass": {"create": False, "name": "system-node-critical"},
            "seLinuxOptions": {"type": "spc_t"},
        }
    },
    "example": {"enabled": True, "replicas": 2},
    "networkPolicy": {
        "agentNamespaces": [{"matchLabels": {"team": "chat"}}],
        "clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "dns": [],
        "postgresql": {"to": [{"podSelector": {"matchLabels": {"app": "postgresql"}}}], "port": 6432},
    },
}
CASES: dict[str, Values] = {
    "sqlite and daemonset": {},
    "sqlite and daemonset over tls": {"tls": TLS},
    "sqlite and sidecar": {"agent": NO_DAEMONS, "example": {"enabled": True}},
    "postgresql and daemonset": {"database": POSTGRESQL},
    "postgresql and sidecar over tls": {
        "database": POSTGRESQL,
        "tls": TLS,
        "agent": NO_DAEMONS,
        "example": {"enabled": True},
    },
    "directories made by hand, no policies": {
        "agent": {"daemonSet": {"prepareDirectories": False}},
        "networkPolicy": {"enabled": False},
    },
    "everything said": EVERYTHING,
}


class _NoRepeatedKeys(yaml.SafeLoader):
    """YAML as Kubernetes reads it strictly: a key given twice is an error, not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is given twice, near {node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="session")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm_python.Chart) -> Render:
    """Values to objects."""

    def rendered(values: Values, name: str = "allotment", namespace: str = "metering") -> Objects:
        files = chart.render(values, name=name, namespace=namespace)
        texts = [text for file, text in files.items() if not file.endswith("NOTES.txt")]
        return [found for text in texts for found in yaml.load_all(text, Loader=_NoRepeatedKeys) if found]

    return rendered


@pytest.fixture(params=CASES, scope="session")
def values(request: pytest.FixtureRequest) -> Values:
    return CASES[request.param]


@pytest.fixture
def objects(render: Render, values: Values) -> Objects:
    """What one way of installing puts into the cluster; new each time, so that a test may spoil it."""
    return render(values)
