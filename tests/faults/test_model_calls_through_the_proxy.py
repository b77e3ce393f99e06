"""Model calls through the metering proxy, by the official clients of their providers: admitted before, passed on as
they are, and counted once, however they end. The provider plays recorded answers."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai

from tests.faults.provider import RECORDED, Provider, events_of
from tests.faults.proxied import Proxied, an_agent_with_a_proxy

CHAT_STREAM = (RECORDED / "openai-chat-stream-1.sse").read_bytes()
MESSAGES = [{"role": "user", "content": "What is the capital of the UK?"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def proxied_agent(run: Any, plane: Any, provider: Provider) -> Iterator[tuple[Any, int]]:
    with an_agent_with_a_proxy(run, plane, provider) as (agent, port):
        yield agent, port


@pytest.fixture
def proxied(proxied_agent: tuple[Any, int], plane: Any, provider: Provider) -> Iterator[Proxied]:
    agent, port = proxied_agent
    provider.seen.clear()
    with Proxied(agent, plane, provider, port, plane.customer(), lambda _, holds: agent.told(holds)) as proxied:
        yield proxied


# -- what comes back, and what is counted


def test_a_whole_answer_is_passed_on_and_counted(proxied: Proxied) -> None:
    answer = proxied.openai(file="openai-chat-1.json").chat.completions.with_raw_response.create(
        model="gpt-4o", messages=MESSAGES, max_tokens=100
    )
    recorded = json.loads((RECORDED / "openai-chat-1.json").read_bytes())
    assert answer.parse().choices[0].message.content == recorded["choices"][0]["message"]["content"]
    assert answer.headers["ratelimit"].startswith('"')
    assert answer.headers["x-request-id"] == "r-1"
    (event,) = proxied.events()
    usage = recorded["usage"]
    assert event["amounts"] == {
        "requests": 1, "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
    }  # fmt: skip
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")
    assert (event["subject"]["user"], event["tags"], event["provider"]) == ("ann", {"team": "red"}, "openai")
    assert event["subject"]["api_key"] == hashlib.sha256(b"sk-test").hexdigest()[:16]
    (seen,) = proxied.provider.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer sk-test"
    assert not [name for name in seen.headers if name.startswith("x-allotment")]
    assert json.loads(seen.body)["max_tokens"] == 100


@pytest.mark.parametrize("step", [1, 7, 4_096])
def test_a_stream_says_what_it_used_although_nobody_asked(proxied: Proxied, step: int) -> None:
    client = proxied.openai(file="openai-chat-stream-1.sse", step=step)
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    assert chunks
    assert all(chunk.choices for chunk in chunks), "the chunk that only says the usage was not asked for"
    assert json.loads(proxied.provider.seen[0].body)["stream_options"] == {"include_usage": True}
    (event,) = proxied.events()
    said = next(json.loads(e[6:])["usage"] for e in events_of(CHAT_STREAM) if b'"choices":[]' in e)
    assert event["amounts"]["input_tokens"] == said["prompt_tokens"]
    assert event["amounts"]["output_tokens"] == said["completion_tokens"]
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")


def test_who_asks_for_the_usage_gets_it(proxied: Proxied) -> None:
    client = proxied.openai(file="openai-chat-stream-1.sse")
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert list(stream)[-1].usage is not None
    proxied.events()


def test_a_stream_comes_as_it_is_made(proxied: Proxied) -> None:
    client = proxied.openai(file="openai-chat-stream-1.sse", step=200, pause=0.05)
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
    at = [time.monotonic() for _ in stream]
    assert at[-1] - at[0] > 0.5 * (len(CHAT_STREAM) / 200) * 0.05
    proxied.events()


def test_anthropics_client_streams_and_is_counted(proxied: Proxied) -> None:
    client = proxied.kept(anthropic.Anthropic(
        api_key="k", base_url=proxied.url("anthropic"), max_retries=0,
        default_headers=proxied.headers(file="anthropic-messages-stream-2.sse", step=50),
    ))  # fmt: skip
    with client.messages.stream(model="claude-test", max_tokens=500, messages=MESSAGES) as stream:
        final = stream.get_final_message()
    event, advisor = sorted(proxied.events(2), key=lambda one: len(one["event"]))
    assert advisor["event"] == f"{event['event']}-1"
    assert advisor["model"].startswith("claude-opus"), "another model's tokens of the same call are priced as its own"
    assert advisor["amounts"] == {"requests": 0, "input_tokens": 2543, "output_tokens": 18}
    usage = final.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert event["amounts"]["input_tokens"] == usage.input_tokens + cached
    assert event["amounts"]["output_tokens"] == usage.output_tokens
    assert (event["provider"], event["model"]) == ("anthropic", final.model)


def test_geminis_client_streams_and_is_counted(proxied: Proxied) -> None:
    options = {"base_url": proxied.url("gemini"), "headers": proxied.headers(file="gemini-generate-stream-1.sse")}
    client = proxied.kept(genai.Client(api_key="k", http_options=options))
    chunks = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello"))
    (event,) = proxied.events()
    usage = chunks[-1].usage_metadata
    prompt = usage.prompt_token_count + usage.tool_use_prompt_token_count
    assert event["amounts"]["input_tokens"] == prompt
    assert event["amounts"]["output_tokens"] == usage.total_token_count - prompt
    assert proxied.provider.seen[0].path.endswith("/models/gemini-2.5-flash:streamGenerateContent?alt=sse")


# -- endings


def test_a_caller_that_goes_ends_the_call_and_pays_what_was_streamed(proxied: Proxied) -> None:
    client = proxied.openai(file="openai-chat-stream-1.sse", step=400, pause=0.05)
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()
    client.close()
    (event,) = proxied.events()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")
    assert event["amounts"]["input_tokens"] > 0
    proxied.until("the provider is left", lambda: proxied.provider.seen[0].ended)
    assert proxied.provider.seen[0].ended == "went"
    assert proxied.in_flight() == 0


def test_a_plan_may_charge_nothing_of_what_the_provider_never_said(proxied: Proxied) -> None:
    proxied.plane.plan("kind", ("out", "output_tokens", 100_000, "month"), unfinished_calls="nothing")
    proxied.customer = proxied.plane.customer("kind")
    client = proxied.openai(file="openai-chat-stream-1.sse", step=300, cut=900)
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    (event,) = proxied.events()
    assert (event["usage_source"], event["outcome"], event["amounts"]) == ("none", "aborted", {"requests": 1})


def test_a_provider_that_breaks_off_is_not_mistaken_for_one_that_ended(proxied: Proxied) -> None:
    client = proxied.openai(file="openai-chat-stream-1.sse", step=300, cut=900)
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    (event,) = proxied.events()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_providers_error_is_passed_on_and_costs_nothing(proxied: Proxied, status: int) -> None:
    text = json.dumps({"error": {"message": "not today", "type": "x", "code": "y", "param": None}})
    client = proxied.openai(text=text, status=status, headers={"retry-after": "7"})
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert (refused.value.status_code, refused.value.body["message"]) == (status, "not today")
    assert refused.value.response.headers["retry-after"] == "7"
    proxied.nothing_is_left()


def test_each_attempt_of_a_retry_that_is_billed_is_counted_once(proxied: Proxied) -> None:
    for _ in range(2):
        proxied.openai(file="openai-chat-1.json").chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert len({event["event"] for event in proxied.events(2)}) == 2


def test_a_provider_that_is_not_there_is_said_and_costs_nothing(proxied: Proxied) -> None:
    answer = httpx.post(proxied.url("nobody") + "/v1/chat/completions", json={}, headers=proxied.headers(), timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
    proxied.nothing_is_left()


def test_a_caller_that_goes_before_the_first_byte_pays_its_prompt(proxied: Proxied) -> None:
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    headers = proxied.headers(hang=10)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(proxied.url("openai") + "/v1/chat/completions", json=body, headers=headers, timeout=0.5)
    (event,) = proxied.events()
    assert (event["usage_source"], event["amounts"]["output_tokens"]) == ("estimated", 0)
    assert event["amounts"]["input_tokens"] > 0
    assert proxied.provider.seen[0].ended == "went"


def test_an_answer_out_of_a_gateways_cache_costs_nothing_but_a_request(proxied: Proxied) -> None:
    client = proxied.openai(file="openai-chat-1.json", headers={"cf-aig-cache-status": "HIT"})
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (event,) = proxied.events()
    assert (event["usage_source"], event["amounts"]) == ("provider", {"requests": 1})


def test_a_fallback_to_another_model_is_counted_as_the_model_that_answered(proxied: Proxied) -> None:
    text = json.dumps({"error": {"message": "no capacity", "type": "x", "code": "y", "param": None}})
    with pytest.raises(openai.APIStatusError):
        proxied.openai(text=text, status=503).chat.completions.create(model="gpt-5", messages=MESSAGES)
    answer = proxied.openai(file="openai-chat-1.json").chat.completions.create(model="gpt-4o", messages=MESSAGES)
    (event,) = proxied.events()
    assert event["model"] == answer.model


# -- what is told later


BATCH = {
    "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "f", "status": "completed",
    "completion_window": "24h", "created_at": 1, "model": "gpt-4o-mini",
    "request_counts": {"total": 3, "completed": 3, "failed": 0},
    "usage": {"input_tokens": 300, "output_tokens": 90, "total_tokens": 390,
              "input_tokens_details": {"cached_tokens": 100}, "output_tokens_details": {"reasoning_tokens": 20}},
}  # fmt: skip


def test_a_batch_that_is_retrieved_twice_is_counted_once(proxied: Proxied) -> None:
    running = BATCH | {"status": "in_progress", "usage": None, "request_counts": None}
    proxied.openai(text=json.dumps(running)).batches.retrieve("batch_1")
    for _ in range(2):
        assert proxied.openai(text=json.dumps(BATCH)).batches.retrieve("batch_1").status == "completed"
    (event,) = proxied.events()
    assert event["amounts"] == {"requests": 3, "input_tokens": 300, "output_tokens": 90}
    assert event["model"] == "gpt-4o-mini"
    proxied.agent.uploaded()
    assert len(proxied.plane.events(proxied.customer)) == 1


def test_the_results_of_a_batch_are_added_up_by_model_and_counted_once(proxied: Proxied) -> None:
    def line(number: int, model: str) -> str:
        usage = {"input_tokens": 10, "output_tokens": number, "service_tier": "batch"}
        message = {"id": f"m{number}", "type": "message", "role": "assistant", "model": model, "content": [],
                   "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}  # fmt: skip
        return json.dumps({"custom_id": str(number), "result": {"type": "succeeded", "message": message}})

    lines = "\n".join([line(1, "claude-a"), line(2, "claude-a"), line(3, "claude-b")]) + "\n"
    counts = {"processing": 0, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0}
    info = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended", "request_counts": counts,
            "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
            "results_url": proxied.url("anthropic") + "/v1/messages/batches/msgbatch_1/results"}  # fmt: skip
    for _ in range(2):
        headers = proxied.headers(text=json.dumps(info))
        url = proxied.url("anthropic")
        client = proxied.kept(anthropic.Anthropic(api_key="k", base_url=url, default_headers=headers))
        assert client.messages.batches.retrieve("msgbatch_1").processing_status == "ended"
        results = httpx.get(info["results_url"], headers=proxied.headers(text=lines))
        assert results.text == lines
    found = {event["model"]: event["amounts"] for event in proxied.events(2)}
    assert found == {
        "claude-a": {"requests": 2, "input_tokens": 20, "output_tokens": 3},
        "claude-b": {"requests": 1, "input_tokens": 10, "output_tokens": 3},
    }
    proxied.agent.uploaded()
    assert len(proxied.plane.events(proxied.customer)) == 2


def test_a_batch_is_somebodys(proxied: Proxied) -> None:
    answer = httpx.get(proxied.url("openai") + "/v1/batches/batch_1")
    assert (answer.status_code, answer.json()["field"]) == (400, "x-allotment-customer")


def test_an_answer_made_in_the_background_is_held_until_it_is_fetched_and_then_counted_exactly(
    proxied: Proxied,
) -> None:
    done = json.loads((RECORDED / "openai-responses-2.json").read_bytes())
    queued = done | {"status": "queued", "usage": None, "output": [], "background": True}
    client = proxied.openai(text=json.dumps(queued))
    begun = client.responses.create(model="gpt-4o", input="Hello", background=True, max_output_tokens=500)
    assert begun.status == "queued"
    assert proxied.in_flight() == 1, "nobody knows yet what it will use"
    client.responses.retrieve(begun.id)
    assert proxied.in_flight() == 1
    for _ in range(2):
        proxied.openai(text=json.dumps(done)).responses.retrieve(begun.id)
    (event,) = proxied.events()
    assert event["usage_source"] == "provider"
    assert event["amounts"]["output_tokens"] == done["usage"]["output_tokens"]
    assert proxied.in_flight() == 0
    proxied.agent.uploaded()
    assert len(proxied.plane.events(proxied.customer)) == 1


def test_what_is_told_later_corrects_the_estimate_of_a_stream_that_broke_off(proxied: Proxied) -> None:
    stream = (RECORDED / "openai-responses-stream-2.sse").read_bytes()
    client = proxied.openai(file="openai-responses-stream-2.sse", cut=len(stream) * 3 // 4, step=500)
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        list(client.responses.create(model="gpt-4o", input="Hello", stream=True))
    (estimated,) = proxied.events()
    assert (estimated["usage_source"], estimated["outcome"]) == ("estimated", "aborted")
    last = next(line for line in reversed(stream.splitlines()) if line.startswith(b"data: {") and b"completed" in line)
    whole = json.loads(last[6:])["response"]
    proxied.openai(text=json.dumps(whole)).responses.retrieve(whole["id"])
    correction = next(event for event in proxied.events(2) if event["event"] != estimated["event"])
    assert correction["event"] == f"{estimated['event']}~1"
    total = estimated["amounts"]["output_tokens"] + correction["amounts"]["output_tokens"]
    assert total == whole["usage"]["output_tokens"]


def test_an_answer_that_comes_whole_is_counted_exactly_although_its_caller_has_gone(proxied: Proxied) -> None:
    body = {"model": "gpt-4o", "messages": MESSAGES}
    headers = proxied.headers(file="openai-chat-1.json", wait=1.5)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(proxied.url("openai") + "/v1/chat/completions", json=body, headers=headers, timeout=0.3)
    (event,) = proxied.events()
    usage = json.loads((RECORDED / "openai-chat-1.json").read_bytes())["usage"]
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")
    assert event["amounts"]["output_tokens"] == usage["completion_tokens"]
    assert proxied.provider.seen[0].ended == "stayed"


# -- refusals


def test_what_is_spent_is_refused_before_it_costs_anything(proxied: Proxied) -> None:
    proxied.plane.plan("one-call", ("calls", "requests", 1, "month"))
    proxied.customer = proxied.plane.customer("one-call")
    client = proxied.openai(file="openai-chat-1.json")
    client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    with pytest.raises(openai.APIStatusError) as refused:
        client.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert refused.value.status_code == 402
    assert refused.value.body["code"] == "usage_limit_reached"
    assert len(proxied.provider.seen) == 1, "refused before it was sent, and not retried"


def test_a_stream_is_cut_when_its_limit_is_reached(proxied: Proxied) -> None:
    proxied.plane.plan("short", ("out", "output_tokens", 600, "month"))
    proxied.customer = proxied.plane.customer("short")
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "lorem ipsum " * 20}, "finish_reason": None}]}  # fmt: skip
    text = ("data: " + json.dumps(chunk) + "\n\n") * 200
    client = proxied.openai(file="x.sse", text=text, step=1_000, pause=0.005)
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    got: list[Any] = []
    with pytest.raises(openai.APIError, match="gets no more") as cut:
        got.extend(stream)
    assert cut.value.body["code"] == "requested_usage_exceeds_limit"
    assert 400 < sum(len(one.choices[0].delta.content) for one in got) <= 600
    (event,) = proxied.events()
    assert event["outcome"] == "aborted"


def test_a_stream_that_is_cut_is_an_error_of_anthropics_and_of_googles_clients(proxied: Proxied) -> None:
    proxied.plane.plan("shorter", ("out", "output_tokens", 600, "month"))
    words = "lorem ipsum " * 20
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}
    events = f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n"
    proxied.customer = proxied.plane.customer("shorter")
    headers = proxied.headers(file="x.sse", text=events * 200, step=500, pause=0.005)  # between two pieces of an event
    client = proxied.kept(anthropic.Anthropic(
        api_key="k", base_url=proxied.url("anthropic"), max_retries=0, default_headers=headers
    ))  # fmt: skip
    with pytest.raises(anthropic.APIStatusError, match="gets no more"):
        list(client.messages.create(model="m", max_tokens=9_000, messages=MESSAGES, stream=True))
    chunk = {"candidates": [{"content": {"parts": [{"text": words}], "role": "model"}, "index": 0}]}
    proxied.customer = proxied.plane.customer("shorter")
    headers = proxied.headers(file="x.sse", text=f"data: {json.dumps(chunk)}\n\n" * 200, step=500, pause=0.005)
    google = proxied.kept(
        genai.Client(api_key="k", http_options={"base_url": proxied.url("gemini"), "headers": headers})
    )
    with pytest.raises(genai.errors.APIError, match="gets no more") as cut:
        list(google.models.generate_content_stream(model="m", contents="Hello"))
    assert cut.value.code == 402
    proxied.events()


@pytest.mark.parametrize(
    ("leave_out", "status", "field"),
    [("x-allotment-customer", 400, "x-allotment-customer"), ("x-allotment-feature", 400, "x-allotment-feature")],
)
def test_a_call_that_says_not_whose_it_is_is_refused(proxied: Proxied, leave_out: str, status: int, field: str) -> None:
    headers = {name: value for name, value in proxied.headers().items() if name != leave_out}
    answer = httpx.post(proxied.url("openai") + "/v1/chat/completions", json={}, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert not proxied.provider.seen


def test_odd_requests_are_answered_clearly(proxied: Proxied) -> None:
    nowhere = httpx.post(f"http://127.0.0.1:{proxied.port}/elsewhere/v1", json={}, headers=proxied.headers())
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "route_not_found")
    rebound = httpx.post(
        proxied.url("openai") + "/v1/chat/completions", json={}, headers=proxied.headers() | {"host": "evil.example"}
    )
    assert rebound.status_code == 421
    assert not proxied.provider.seen
    free = httpx.get(proxied.url("openai") + "/v1/models")
    assert free.status_code == 200
    with socket.create_connection(("127.0.0.1", proxied.port)) as noise:
        noise.sendall(b"\x16\x03\x01garbage\r\n\r\n")
        noise.settimeout(5)
        assert b"HTTP/1.1 200" not in noise.recv(1_000)
    proxied.openai(file="openai-chat-1.json").chat.completions.create(model="gpt-4o", messages=MESSAGES)
    proxied.events()


def test_no_prompt_and_no_answer_is_ever_logged_or_kept(proxied: Proxied) -> None:
    secret = "the-secret-of-this-prompt"
    messages = [{"role": "user", "content": secret}]
    proxied.openai(file="openai-chat-1.json").chat.completions.create(model="gpt-4o", messages=messages)
    proxied.events()
    assert secret not in proxied.agent.program.said()
    for path in proxied.agent.data.iterdir():
        assert secret.encode() not in path.read_bytes()
