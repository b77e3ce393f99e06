"""The proxy's settings where they matter, and what becomes of calls while the agent is told to stop."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.faults.provider import Provider
from tests.faults.proxied import Proxied, an_agent_with_a_proxy

MESSAGES = [{"role": "user", "content": "What is the capital of the UK?"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def configured(run: Any, plane: Any, provider: Provider, tmp_path_factory: Any, wait_until: Any) -> Iterator[Proxied]:
    """One customer's key is in a file; limits are told as OpenAI tells them; the worst is held."""
    plane.plan("pairs", ("calls", "requests", 2, "day"), ("out", "output_tokens", 10_000, "month"))
    customer = plane.customer("pairs")
    owner = {"customer": customer, "feature": "chat", "user": "ann", "tags": {"team": "red"}}
    keys: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_text(json.dumps({hashlib.sha256(b"sk-test").hexdigest(): owner}))
    settings = {"ALLOTMENT_PROXY_KEYS_FILE": str(keys), "ALLOTMENT_PROXY_RATELIMIT": "vendor",
                "ALLOTMENT_PROXY_ESTIMATE": "worst"}  # fmt: skip
    with an_agent_with_a_proxy(run, plane, provider, **settings) as (agent, port):
        yield Proxied(agent, plane, provider, port, customer, wait_until)


@pytest.fixture(autouse=True)
def nothing_seen(provider: Provider) -> None:
    provider.seen.clear()


def test_a_key_says_whose_call_it_is_and_headers_change_nothing_of_it(configured: Proxied) -> None:
    def call(key: str, **headers: str) -> httpx.Response:
        named = {"authorization": f"Bearer {key}", "x-play": json.dumps({"file": "openai-chat-1.json"}), **headers}
        body = {"model": "gpt-4o", "messages": MESSAGES, "max_tokens": 50}
        return httpx.post(configured.url("openai") + "/v1/chat/completions", json=body, headers=named)

    unknown = call("sk-other")
    assert (unknown.status_code, unknown.json()["code"]) == (401, "api_key_unknown")
    assert unknown.json()["error"]["code"] == "api_key_unknown"
    assert call("sk-test", **{"x-allotment-customer": "somebody-else"}).status_code == 400
    assert configured.provider.seen == []
    assert call("sk-test", **{"x-allotment-user": "bob", "x-allotment-tags": "team=blue,project=x"}).status_code == 200
    (event,) = configured.events()
    assert (event["subject"]["user"], event["tags"]) == ("ann", {"team": "red", "project": "x"})


def test_limits_are_told_as_openai_tells_them_and_refusals_say_what_to_do(configured: Proxied) -> None:
    theirs = {"x-ratelimit-remaining-requests": "9999", "x-ratelimit-limit-project-tokens": "5"}
    client = openai.OpenAI(
        api_key="sk-test", base_url=configured.url("openai") + "/v1", max_retries=2,
        default_headers={"x-play": json.dumps({"file": "openai-chat-1.json", "headers": theirs})},
    )  # fmt: skip
    answer = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, max_tokens=50)
    told = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
    assert told["x-ratelimit-limit-requests"] == "2"
    left = int(told["x-ratelimit-remaining-requests"])
    assert told["x-ratelimit-limit-tokens"] == "10000"
    assert 9_000 < int(told["x-ratelimit-remaining-tokens"]) < 10_000
    assert told["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-project-tokens" not in told, "all of them are ours"
    for _ in range(left):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=50)
    seen = len(configured.provider.seen)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=50)
    assert refused.value.status_code == 402
    assert len(configured.provider.seen) == seen, "not sent, and not tried again"
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    said = refused.value.response.json()
    assert said["error"]["message"] == said["detail"]
    assert (said["limiting"], said["usage"], said["remaining"]) == ("calls", 2, 0)
    assert said["resets_in_ms"] > 0
    client.close()


def test_an_agent_that_stops_lets_streams_end_and_counts_them(
    run: Any, plane: Any, provider: Provider, wait_until: Any
) -> None:
    with an_agent_with_a_proxy(run, plane, provider) as (agent, port):
        proxied = Proxied(agent, plane, provider, port, plane.customer(), wait_until)
        client = proxied.openai(file="openai-chat-stream-1.sse", step=300, pause=0.1)
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = iter(stream)
        first = next(chunks)
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(agent.stop()))
        stopping.start()
        wait_until("no more calls are taken", lambda: not _connects(port))
        usage = [first, *chunks][-1].usage
        client.close()
        stopping.join()
    assert stopped == [0]
    (event,) = plane.events(proxied.customer)
    assert event["usage"]["amounts"]["output_tokens"] == usage.completion_tokens
    assert plane.lent(proxied.customer) == 0


def test_an_agent_that_stops_does_not_wait_for_ever_for_an_answer_that_comes_whole(
    run: Any, plane: Any, provider: Provider, wait_until: Any
) -> None:
    with an_agent_with_a_proxy(run, plane, provider) as (agent, port):
        proxied = Proxied(agent, plane, provider, port, plane.customer(), wait_until)
        body = {"model": "gpt-4o", "messages": MESSAGES}
        headers = proxied.headers(hang=60)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(proxied.url("openai") + "/v1/chat/completions", json=body, headers=headers, timeout=0.5)
        assert proxied.in_flight() == 1, "its caller has gone, and it is waited for"
        assert agent.stop() == 0
    (event,) = plane.events(proxied.customer)
    assert event["usage"]["usage_source"] == "estimated"
    assert plane.lent(proxied.customer) == 0


def _connects(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/openai/v1/models", timeout=2)
    except httpx.TransportError:
        return False
    return True
