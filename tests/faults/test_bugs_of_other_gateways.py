"""What broke in other gateways (docs/field-bugs.md) and nothing else here shows: calls that begin at once, streams left
just before they say what they used, retries that are billed, paths that nobody knows, and sums that must agree."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest

from allotment import Client
from tests.faults.programs import Agent
from tests.faults.provider import RECORDED, Provider
from tests.faults.proxied import Proxied, an_agent_with_a_proxy

MESSAGES = [{"role": "user", "content": "What is the capital of the UK?"}]
CHAT = {"model": "gpt-4o", "messages": MESSAGES}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def hosts(run: Any, plane: Any, provider: Provider) -> Iterator[tuple[Agent, Agent, int]]:
    """An agent with a proxy, another without, and the port of the proxy."""
    number = secrets.token_hex(3)
    other = Agent(run.root / number, plane, f"agent-{number}").spawn()
    run.agents.append(other)
    try:
        with an_agent_with_a_proxy(run, plane, provider) as (agent, port):
            yield agent, other.answers(), port
    finally:
        other.kill()


@pytest.fixture
def proxied(hosts: tuple[Agent, Agent, int], plane: Any, provider: Provider) -> Iterator[Proxied]:
    agent, _, port = hosts
    provider.seen.clear()
    with Proxied(agent, plane, provider, port, plane.customer(), lambda _, holds: agent.told(holds)) as proxied:
        yield proxied


# -- calls that begin at once


@pytest.mark.parametrize(
    ("scope", "who"),
    [("customer", {}), ("user", {"user": "never-seen"}), ("tag", {"tags": {"session": "s-1"}})],
)
def test_first_calls_at_once_on_two_hosts_get_what_is_left_and_not_one_more(
    hosts: tuple[Agent, Agent, int], plane: Any, scope: str, who: dict[str, Any]
) -> None:
    """Nobody has asked for this customer, user or session before; every call is in flight until all are answered."""
    more = {"scope": scope} | ({"scope_tag": "session"} if scope == "tag" else {})
    plane.plan(f"seven-{scope}", ("seven", "requests", 7, "month", more))
    customer = plane.customer(f"seven-{scope}")
    together = threading.Barrier(24)

    def ask(client: Client) -> Any:
        together.wait(10)
        return client.reserve(customer, "chat", deadline_ms=15_000, **who)

    with hosts[0].client(timeout_s=20) as one, hosts[1].client(timeout_s=20) as two, ThreadPoolExecutor(24) as pool:
        decisions = list(pool.map(ask, [one, two] * 12))
        allowed = [decision for decision in decisions if decision.allowed]
        assert len(allowed) == 7
        for decision in decisions:
            assert decision.allowed or (decision.limiting, decision.amount) == ("seven", 7), decision
        for at, decision in enumerate(decisions):
            if decision.allowed:
                (one, two)[at % 2].settle(decision.reservation.id)
        assert not one.reserve(customer, "chat", deadline_ms=2_000, **who).allowed
    hosts[0].told(lambda: hosts[1].told(lambda: plane.used(customer, "requests") >= 7))
    assert plane.used(customer, "requests") == 7


def test_no_more_of_a_burst_reaches_the_provider_than_may(proxied: Proxied) -> None:
    proxied.plane.plan("five", ("five", "requests", 5, "month"))
    proxied.customer = proxied.plane.customer("five")
    headers = proxied.headers(file="openai-chat-stream-1.sse", step=2_000, pause=0.3)
    together = threading.Barrier(16)

    def post() -> httpx.Response:
        return httpx.post(proxied.url("openai") + "/v1/chat/completions", json=CHAT, headers=headers, timeout=20)

    def at_once(_: int) -> httpx.Response:
        together.wait(10)
        return post()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(at_once, range(16)))
    assert {answer.status_code for answer in answers} <= {200, 402, 503}, "503 only while the control plane is slow"
    assert all("'five'" in answer.json()["detail"] for answer in answers if answer.status_code == 402)
    assert len(proxied.provider.seen) <= 5
    proxied.until("what is left is used", lambda: post().status_code == 402)
    assert len(proxied.provider.seen) == 5
    proxied.events(5)


@pytest.mark.parametrize(
    "path",
    [
        "openai/v1/responses", "openai/v1/embeddings", "openai/v1/images/generations", "openai/v1/audio/speech",
        "openai/v1/completions", "openai/v1/what-nobody-knows-yet", "anthropic/v1/messages",
        "gemini/v1beta/models/g:generateContent", "gemini/v1beta/models/g:streamGenerateContent?alt=sse",
    ],
)  # fmt: skip
def test_no_path_leads_past_a_limit(proxied: Proxied, path: str) -> None:
    proxied.plane.plan("none", ("none", "requests", 0, "month"))
    proxied.customer = proxied.plane.customer("none")
    answer = httpx.post(proxied.url(path), json={"model": "m", "input": "Hello"}, headers=proxied.headers(), timeout=20)
    assert answer.status_code == 402, answer.text
    assert not proxied.provider.seen


# -- endings


@pytest.mark.parametrize(
    ("path", "file", "before", "inputs"),
    [
        ("openai/v1/chat/completions", "openai-chat-stream-1.sse", b'"choices":[]', 1),
        ("anthropic/v1/messages", "anthropic-messages-stream-4.sse", b'{"type":"message_delta"', 2_694),
        ("gemini/v1beta/models/g:streamGenerateContent?alt=sse", "gemini-generate-stream-1.sse", b"data: ", 1),
    ],
)
def test_a_stream_left_just_before_it_says_what_it_used_is_not_free(
    proxied: Proxied, path: str, file: str, before: bytes, inputs: int
) -> None:
    stream = (RECORDED / file).read_bytes()
    at = stream.rindex(b"data: ", 0, stream.rindex(before) + len(b"data: "))
    url, headers = proxied.url(path), proxied.headers(file=file, step=at, pause=2)
    body = CHAT | {"stream": True, "max_tokens": 5_000}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=20) as answer:
        got = b""
        for piece in answer.iter_raw():
            got += piece
            if len(got) >= at - len(b"event: message_delta\n"):
                break
    (event,) = proxied.events()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")
    assert event["amounts"]["input_tokens"] >= inputs
    assert event["amounts"]["output_tokens"] > 0
    assert proxied.in_flight() == 0


def test_every_attempt_of_a_retry_is_billed_by_what_it_came_to(proxied: Proxied) -> None:
    attempts: list[Any] = []

    def hangs_once(request: Any) -> None:
        attempts.append(request)
        request.headers["x-play"] = json.dumps({"hang": 10} if len(attempts) == 1 else {"file": "openai-chat-1.json"})

    client = proxied.openai().with_options(max_retries=1, timeout=1.0)
    client._client.event_hooks = {"request": [hangs_once]}
    client.chat.completions.create(**CHAT)
    assert len(attempts) == len(proxied.provider.seen) == 2
    first, second = sorted(proxied.events(2), key=lambda event: event["amounts"]["output_tokens"])
    assert first["event"] != second["event"]
    assert (first["usage_source"], first["amounts"]["output_tokens"]) == ("estimated", 0)
    assert (second["usage_source"], second["amounts"]["input_tokens"], second["amounts"]["output_tokens"]) == (
        "provider", 64, 9,
    )  # fmt: skip


# -- sums


def test_limits_move_by_exactly_what_the_ledger_says(proxied: Proxied) -> None:
    """Whole, streamed, in Anthropic's words, failed and left: what is enforced is what is recorded, by tokens."""
    proxied.openai(file="openai-chat-1.json").chat.completions.create(**CHAT)
    list(proxied.openai(file="openai-chat-stream-1.sse").chat.completions.create(**CHAT, stream=True))
    claude = proxied.kept(anthropic.Anthropic(
        api_key="k", base_url=proxied.url("anthropic"), max_retries=0,
        default_headers=proxied.headers(file="anthropic-messages-stream-1.sse", step=50),
    ))  # fmt: skip
    with claude.messages.stream(model="claude-test", max_tokens=500, messages=MESSAGES) as stream:
        stream.until_done()
    with pytest.raises(openai.APIStatusError):
        proxied.openai(text="{}", status=500).chat.completions.create(**CHAT)
    with proxied.openai(file="openai-chat-stream-1.sse", step=400, pause=0.05) as client:
        next(iter(client.chat.completions.create(**CHAT, stream=True)))
    events = proxied.events(4)
    assert proxied.in_flight() == 0
    for meter, limit in (("output_tokens", "tokens-a-day"), ("requests", "requests-a-month")):
        recorded = sum(event["amounts"].get(meter, 0) for event in events)
        assert proxied.plane.used(proxied.customer, meter) == recorded > 0
        with proxied.agent.client() as client:
            (enforced,) = [one for one in client.usage(proxied.customer).limits if one.limit == limit]
        assert (enforced.usage, enforced.amount - enforced.remaining) == (recorded, recorded)
        balances = proxied.plane.get(f"/v1/customers/{proxied.customer}/balances")["items"]
        assert [one["used"] for one in balances if one["limit"] == limit] == [recorded]
