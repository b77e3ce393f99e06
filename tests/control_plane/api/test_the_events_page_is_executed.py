"""The page about usage from elsewhere is executed, with clients nobody here wrote, against a real control plane."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from corehttp.exceptions import HttpResponseError
from openmeter import Client

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
ANSWER = json.dumps(
    json.loads((Path(__file__).parents[2] / "data" / "recorded" / "openai-chat-1.json").read_text())
).encode()
CATALOG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/features/chat", {"name": "Chat", "kind": "metered"}),
    ("/v1/features/prompt", {"name": "Prompts", "kind": "metered"}),
    ("/v1/meters/images", {"unit": "images"}),
    ("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}, {"feature": "prompt"}]}),
)


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of each block of code of a section."""
    text = re.split(r"^## ", PAGE.partition(f"\n## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Elsewhere:
    """Whoever sends usage to a control plane, and an admin who looks at what came of it."""

    def __init__(self, served: Any) -> None:
        self.admin = httpx.Client(base_url=served.url, headers=served.headers)
        for path, body in CATALOG:
            assert self.admin.put(path, json=body).is_success, path
        for customer in ("acme", "customer-1"):
            assert self.admin.put(f"/v1/customers/{customer}", json={"name": customer}).is_success
            assert self.admin.put(f"/v1/customers/{customer}/subscription", json={"plan": "pro"}).is_success
        self.url = served.url
        self.token, self.metrics_token = (
            self.admin.post("/v1/tokens", json={"role": role, "name": role}).json()["text"]
            for role in ("ingest", "metrics")
        )

    def close(self) -> None:
        self.admin.close()

    def run(self, language: str, text: str, **settings: str) -> str:
        """Execute a block of the page as a reader would. Returns what it prints."""
        command = {"sh": ["bash", "-euc", text], "python": [sys.executable, "-c", text]}[language]
        environment = {
            **os.environ, "ALLOTMENT_URL": self.url, "ALLOTMENT_TOKEN": self.token,
            "ALLOTMENT_METRICS_TOKEN": self.metrics_token, **settings,
        }  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def usage(self, customer: str) -> dict[str, int]:
        rows = self.admin.get(f"/v1/customers/{customer}/usage", params={"group_by": "meter"}).json()["items"]
        return {row["meter"]: row["quantity"] for row in rows}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_block_of_the_page_does_what_it_says(served: Any) -> None:
    with contextlib.closing(Elsewhere(served)) as elsewhere:
        _cloud_events(elsewhere)
        _openmeter(elsewhere)
        _spans(elsewhere)
        _metrics(elsewhere)


def _cloud_events(elsewhere: Elsewhere) -> None:
    (said, answered) = blocks("CloudEvents")
    assert json.loads(elsewhere.run(*said)) == json.loads(answered[1])
    assert elsewhere.usage("acme") == {"input_tokens": 1_386, "output_tokens": 230, "requests": 1}


def _openmeter(elsewhere: Elsewhere) -> None:
    (program,) = blocks("Clients of OpenMeter")
    elsewhere.run(*program)
    assert elsewhere.usage("customer-1") == {"input_tokens": 100, "output_tokens": 0, "requests": 1}

    def event(id_: str, **data: Any) -> Any:
        return {
            "id": id_,
            "source": "my-app",
            "specversion": "1.0",
            "type": "prompt",
            "subject": "customer-1",
            "data": data,
        }

    with Client(endpoint=elsewhere.url, token=elsewhere.token) as client:
        for _ in range(2):
            client.events.ingest_event(event("a", tokens=30, type="output"))
        client.events.ingest_events([event("a", tokens=30, type="output", path="/hello world"), event("b", images=2)])
        client.events.ingest_events_json([event("c", amounts={"images": 1}, subject={"user": "ann"}, requests=0)])
        with pytest.raises(HttpResponseError) as refused:
            client.events.ingest_events(
                [event("d", smiles=1), event("e", images=4), event("f", images=1.5), event("g", tokens=1, type=[])]
            )
    assert refused.value.status_code == 400
    text = refused.value.response.text()
    assert "3 of 4 events are not counted, the others are. Event 0 (d) is rejected: amounts.smiles" in text
    assert elsewhere.usage("customer-1") == {"input_tokens": 100, "output_tokens": 30, "images": 7, "requests": 4}


class Provider(BaseHTTPRequestHandler):
    """Answers every call as OpenAI once did."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def provider() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(elsewhere: Elsewhere) -> None:
    """OpenTelemetry's own instrumentation of OpenAI's own client, and its own exporter."""
    (program,) = blocks("OpenTelemetry spans")
    before = elsewhere.usage("acme")
    with provider() as url:
        elsewhere.run(*program, OPENAI_BASE_URL=url, OPENAI_API_KEY="k", OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    after = elsewhere.usage("acme")
    said = json.loads(ANSWER)["usage"]
    assert after["input_tokens"] - before["input_tokens"] == said["prompt_tokens"]
    assert after["output_tokens"] - before["output_tokens"] == said["completion_tokens"]
    assert after["requests"] - before["requests"] == 1
    (newest, *_) = elsewhere.admin.get("/v1/customers/acme/events").json()["items"]
    assert newest["agent"].startswith("spans~")
    assert newest["usage"]["model"] == json.loads(ANSWER)["model"]


def _metrics(elsewhere: Elsewhere) -> None:
    scrape, shown = blocks("What comes in goes out: metrics")
    assert sorted(elsewhere.run(*scrape).splitlines()) == sorted(shown[1].splitlines())
    text = elsewhere.admin.get("/metrics").text
    for metric in re.findall(r"^\| `(\w+)\{", PAGE, re.MULTILINE):
        assert f"\n{metric}" in text, metric
