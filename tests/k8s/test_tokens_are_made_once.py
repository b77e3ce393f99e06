"""The chart's own tokens: well formed, never the same twice, and kept by an upgrade that can look into the cluster."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python
import pytest
import yaml

TOKEN = r"alt_{role}_[0-9a-f]{{12}}_[A-Za-z0-9_-]{{43}}"


def tokens_in(objects: list[dict[str, Any]]) -> dict[str, str]:
    secrets = [found for found in objects if found["kind"] == "Secret"]
    return {s["metadata"]["name"]: base64.b64decode(s["data"]["token"]).decode() for s in secrets}


class Cluster(ThreadingHTTPServer):
    """As much of the Kubernetes API as Helm's `lookup` asks for: discovery of version v1, and Secrets by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Cluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        status, body = self.answer(path)
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        name = path.removeprefix("/api/v1/namespaces/metering/secrets/")
        resource = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
        match path:
            case "/api":
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case "/apis":
                return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
            case "/api/v1":
                return 200, {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]}
            case "/version":
                return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
        if name in self.server.secrets:
            return 200, self.server.secrets[name]
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


def rendered_in(cluster: Cluster, chart: helm_python.Chart) -> list[dict[str, Any]]:
    address = f"http://127.0.0.1:{cluster.server_port}"
    nobody = json.dumps({"apiVersion": "v1", "kind": "Config"})
    with helm_python.Config(kube_apiserver=address, kubeconfig_content=nobody, namespace="metering") as config:
        files = config.render(chart, {}, name="allotment", namespace="metering", is_upgrade=True)
    return [found for file, text in files.items() if "NOTES" not in file for found in yaml.safe_load_all(text) if found]


def test_tokens_are_well_formed_and_never_the_same(render):
    first, second = tokens_in(render({})), tokens_in(render({}))
    assert set(first) == {"allotment-admin-token", "allotment-join-token"}
    for role in ("admin", "join"):
        name = f"allotment-{role}-token"
        assert re.fullmatch(TOKEN.format(role=role), first[name])
        assert first[name] != second[name]
    assert first["allotment-admin-token"].split("_", 3)[3] != first["allotment-join-token"].split("_", 3)[3]


def test_two_hundred_tokens_all_have_the_form(chart):
    texts = [chart.render({}, name="allotment")["allotment/templates/tokens.yaml"] for _ in range(100)]
    encoded = [found for text in texts for found in re.findall(r"  token: (\S+)", text)]
    made = [base64.b64decode(found).decode() for found in encoded]
    assert len({token.split("_", 3)[2] for token in made}) == 200
    assert [token for token in made if not re.fullmatch(TOKEN.format(role="(admin|join)"), token)] == []


def test_an_upgrade_keeps_the_tokens_that_the_cluster_holds(chart, cluster):
    fresh = rendered_in(cluster, chart)
    cluster.secrets = {found["metadata"]["name"]: found for found in fresh if found["kind"] == "Secret"}
    cluster.asked.clear()
    assert tokens_in(rendered_in(cluster, chart)) == tokens_in(fresh)
    assert "/api/v1/namespaces/metering/secrets/allotment-join-token" in cluster.asked


def test_a_secret_of_the_operators_own_is_used_and_none_is_made(render):
    given = {"tokens": {"admin": {"existingSecret": "mine", "key": "k"}, "join": {"existingSecret": "theirs"}}}
    objects = render(given)
    assert [found for found in objects if found["kind"] == "Secret"] == []
    (control_plane,) = [found for found in objects if found["kind"] == "StatefulSet"]
    volumes = {volume["name"]: volume for volume in control_plane["spec"]["template"]["spec"]["volumes"]}
    sources = [source["secret"] for source in volumes["tokens"]["projected"]["sources"]]
    assert [(source["name"], source["items"][0]["key"]) for source in sources] == [("mine", "k"), ("theirs", "token")]
