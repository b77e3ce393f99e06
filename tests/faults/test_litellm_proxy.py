"""A real LiteLLM proxy with our hooks, in front of a provider that plays recorded answers, asked by official clients:
admitted before it costs anything, counted once however it ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import yaml

from tests.faults.pages import example
from tests.faults.programs import Agent, Program, a_free_port, until
from tests.faults.provider import RECORDED, Provider

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.frameworks

EXAMPLE = ROOT / "examples" / "litellm"
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"
MASTER = f"sk-{secrets.token_hex(24)}"
KEYS = '''
"""Virtual keys without a database: what LiteLLM would read of them from its own."""

from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth, hash_token


async def user_api_key_auth(request, api_key):
    name = api_key.removeprefix("Bearer ")
    if name == "MASTER":
        return UserAPIKeyAuth(api_key=name, user_role=LitellmUserRoles.PROXY_ADMIN)
    if name.startswith("sk-of-"):
        return UserAPIKeyAuth(api_key=hash_token(name), metadata={"allotment_customer": name.removeprefix("sk-of-")})
    return UserAPIKeyAuth(api_key=hash_token(name))
'''


@dataclass
class Gateway:
    """The proxy, what is behind it, and one customer's calls through both."""

    agent: Agent
    plane: Any
    provider: Provider
    url: str
    customer: str = ""

    def client(self, key: str | None = None, **headers: str) -> openai.OpenAI:
        named = {"x-allotment-customer": self.customer, "x-allotment-feature": "chat"} if key is None else {}
        return openai.OpenAI(
            api_key=key or MASTER, base_url=f"{self.url}/v1", max_retries=0, timeout=30, default_headers=named | headers
        )

    def ask(self, client: openai.OpenAI | None = None, model: str = "gpt-4o", play: Any = None, **more: Any) -> Any:
        extra = {"extra_headers": {"x-play": json.dumps(play or {})}} | more.pop("extra", {})
        prompt = f"What is the capital of the UK? {secrets.token_hex(4)}"
        return (client or self.client()).chat.completions.create(
            model=model, messages=more.pop("messages", [{"role": "user", "content": prompt}]), extra_body=extra, **more
        )

    def refused(self, client: openai.OpenAI | None = None) -> openai.APIStatusError:
        """The refusal, once the control plane has had its say: while it is slow, nobody can tell (503)."""

        def asked() -> openai.APIStatusError | None:
            with pytest.raises(openai.APIStatusError) as error:
                self.ask(client)
            return None if error.value.status_code == 503 else error.value

        found: openai.APIStatusError = until("it is decided", asked)
        return found

    def counted(self) -> dict[str, int]:
        """What the agent has counted, once nothing is held any longer."""
        until("nothing is held", lambda: self.agent.status().reservations == 0)
        with self.agent.client() as client:
            return {limit.meter: limit.usage for limit in client.usage(self.customer).limits}

    def event(self) -> dict[str, Any]:
        """The one event of this customer."""
        self.counted()
        self.agent.told(lambda: self.agent.status().outbox_events == 0 and self.plane.events(self.customer))
        (event,) = self.plane.events(self.customer)
        return {"usage_source": "provider", "outcome": "complete", **event["usage"]}


@pytest.fixture(scope="module")
def proxy(run: Any, plane: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    assert LITELLM.exists(), "its virtual environment is made by `make .venv-litellm/.ready`"
    number = secrets.token_hex(3)
    agent = Agent(run.root / number, plane, f"agent-{number}").spawn()
    run.agents.append(agent)
    folder = tmp_path_factory.mktemp("litellm")
    shutil.copy(EXAMPLE / "allotment_hooks.py", folder)
    (folder / "virtual_keys.py").write_text(KEYS.replace("MASTER", MASTER))
    port = a_free_port()
    with Provider() as provider:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        (folder / "config.yaml").write_text(yaml.safe_dump(_config(provider)))
        program = Program(
            [str(LITELLM), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)],
            folder / "litellm.log",
            {
                "ALLOTMENT_SOCKET": str(agent.frames), "LITELLM_MASTER_KEY": MASTER, "OPENAI_API_KEY": "sk-provider",
                "OPENAI_API_BASE": f"{provider.url}/v1", "ANTHROPIC_API_KEY": "k", "ANTHROPIC_API_BASE": provider.url,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(folder),
                "PYTHONDONTWRITEBYTECODE": "",  # what it compiles once need not be compiled again
            },
        )  # fmt: skip
        program.spawn()
        agent.answers()
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert program.alive, program.said()[-4_000:]
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{url}/health/liveliness", timeout=5).status_code == 200
            return False

        try:
            until("LiteLLM is ready", ready, within_s=180, every_s=0.2)
            yield Gateway(agent, plane, provider, url)
            said = program.said()
            assert "Non-Blocking" not in said, said
            assert "allotment:" not in said, said
        finally:
            program.kill()
            agent.kill()
            provider.shutdown()


def _config(provider: Provider) -> dict[str, Any]:
    """The example's, and what the tests want beside it: a model that fails over, one that gives up, a cache."""
    config: dict[str, Any] = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    mine = {"api_key": "k", "api_base": f"{provider.url}/v1"}
    config["model_list"] += [
        {
            "model_name": "broken",
            "litellm_params": {"model": "openai/broken", **mine, "api_base": "http://127.0.0.1:9"},
        },
        {"model_name": "impatient", "litellm_params": {"model": "openai/gpt-4o", **mine, "timeout": 0.5}},
        {"model_name": "small", "litellm_params": {"model": "openai/text-embedding-3-small", **mine}},
    ]
    config["router_settings"] = {"num_retries": 1, "fallbacks": [{"broken": ["gpt-4o"]}], "retry_after": 0}
    config["litellm_settings"] |= {"cache": True, "cache_params": {"type": "local", "mode": "default_off"}}
    config["general_settings"]["custom_auth"] = "virtual_keys.user_api_key_auth"
    return config


@pytest.fixture
def gateway(proxy: Gateway, plane: Any) -> Gateway:
    proxy.provider.seen.clear()
    proxy.customer = plane.customer()
    return proxy


def test_a_whole_answer_is_counted_as_the_provider_says(gateway: Gateway) -> None:
    answer = gateway.ask(gateway.client().with_raw_response, user="ann")
    recorded = json.loads((RECORDED / "openai-chat-1.json").read_bytes())
    assert answer.headers["ratelimit"].startswith('"')
    event = gateway.event()
    usage = recorded["usage"]
    assert event["amounts"] == {
        "requests": 1, "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
    }  # fmt: skip
    assert (event["usage_source"], event["outcome"], event["provider"]) == ("provider", "complete", "openai")
    assert event["subject"]["user"] == "ann"
    assert "allotment" not in gateway.provider.seen[0].body.decode()
    assert not [name for name in gateway.provider.seen[0].headers if name.startswith("x-allotment")]


def test_a_stream_is_counted_by_what_the_provider_says_in_the_end(gateway: Gateway) -> None:
    chunks = list(gateway.ask(play={"file": "openai-chat-stream-1.sse", "step": 50}, stream=True))
    assert chunks
    event = gateway.event()
    said = gateway.provider.seen[0]
    assert b"include_usage" in said.body
    stream = (RECORDED / "openai-chat-stream-1.sse").read_text()
    usage = next(json.loads(line[6:])["usage"] for line in stream.splitlines() if '"choices":[]' in line)
    assert event["amounts"]["input_tokens"] == usage["prompt_tokens"]
    assert event["amounts"]["output_tokens"] == usage["completion_tokens"]
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")


def test_anthropics_client_streams_and_is_counted_with_its_cache_and_every_pass(gateway: Gateway) -> None:
    client = anthropic.Anthropic(
        api_key=MASTER, base_url=gateway.url, max_retries=0, default_headers={"x-allotment-customer": gateway.customer}
    )
    play = {"extra_headers": {"x-play": json.dumps({"file": "anthropic-messages-stream-1.sse", "step": 50})}}
    messages = [{"role": "user", "content": "Hello"}]
    with client.messages.stream(model="claude-sonnet", max_tokens=500, messages=messages, extra_body=play) as stream:
        assert stream.get_final_message().content
    recorded = (RECORDED / "anthropic-messages-stream-1.sse").read_text()
    (said,) = [json.loads(line[6:]) for line in recorded.splitlines() if '"iterations"' in line]
    passes = said["usage"]["iterations"]
    event = gateway.event()
    read = sum(one["cache_read_input_tokens"] for one in passes)
    assert event["amounts"]["input_tokens"] == read + sum(one["input_tokens"] for one in passes)
    assert event["amounts"]["output_tokens"] == sum(one["output_tokens"] for one in passes)
    assert event["tokens"]["cache_read"] == read > 0
    assert event["provider"] == "anthropic"


def test_responses_are_counted_too(gateway: Gateway) -> None:
    play = {"extra_headers": {"x-play": json.dumps({"file": "openai-responses-stream-2.sse", "step": 300})}}
    stream = gateway.client().responses.create(model="gpt-4o", input="Hello", stream=True, extra_body=play)
    (usage,) = [event.response.usage for event in stream if event.type == "response.completed"]
    event = gateway.event()
    assert event["amounts"] == {
        "requests": 1, "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
    }  # fmt: skip
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")


def test_embeddings_are_counted_too(gateway: Gateway) -> None:
    text = json.dumps({
        "object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    })  # fmt: skip
    play = {"extra_headers": {"x-play": json.dumps({"text": text})}}
    gateway.client().embeddings.create(model="small", input=secrets.token_hex(8), extra_body=play)
    assert gateway.event()["amounts"] == {"requests": 1, "input_tokens": 5, "output_tokens": 0}


# -- refusals


def test_what_is_spent_is_refused_before_it_is_sent_and_not_asked_again(gateway: Gateway) -> None:
    gateway.plane.plan("one-call", ("calls", "requests", 1, "month"))
    gateway.customer = gateway.plane.customer("one-call")
    gateway.ask()
    assert gateway.counted()["requests"] == 1
    refused = gateway.refused(gateway.client().with_options(max_retries=2))
    assert refused.status_code == 402, refused.response.text
    assert refused.response.headers["x-should-retry"] == "false"
    assert refused.response.headers["x-allotment-limit"] == "calls"
    assert refused.body["type"] == "usage_limit_reached"
    assert "calls" in refused.message
    assert len(gateway.provider.seen) == 1
    assert gateway.counted()["requests"] == 1


def test_too_fast_is_429_with_when_to_come_back(gateway: Gateway) -> None:
    gateway.plane.plan("slow", ("pace", "requests", 1, "minute", {"at_end": "throttle"}))
    gateway.customer = gateway.plane.customer("slow")
    gateway.ask()
    refused = gateway.refused()
    assert isinstance(refused, openai.RateLimitError)
    assert int(refused.response.headers["retry-after"]) > 0
    assert len(gateway.provider.seen) == 1


def test_a_virtual_keys_customer_is_fixed_and_a_key_of_nobody_is_refused(gateway: Gateway) -> None:
    mine = f"sk-of-{gateway.customer}"
    gateway.ask(gateway.client(mine, **{"x-allotment-customer": "another"}))
    event = gateway.event()
    assert event["subject"]["api_key"] == hashlib.sha256(mine.encode()).hexdigest()[:16]
    with pytest.raises(openai.PermissionDeniedError, match="nobody is known"):
        gateway.ask(gateway.client("sk-stranger", **{"x-allotment-customer": gateway.customer}))
    assert len(gateway.provider.seen) == 1


def test_what_callers_forge_changes_nothing(gateway: Gateway) -> None:
    forged: dict[str, Any] = {
        "metadata": {"allotment_reservation": "somebody-elses", "client_disconnected": True},
        "no-log": True, "cache_hit": True,
    }  # fmt: skip
    for _ in range(2):
        gateway.ask(extra=forged)
    client = anthropic.Anthropic(
        api_key=MASTER, base_url=gateway.url, max_retries=0, default_headers={"x-allotment-customer": gateway.customer}
    )
    play = {"extra_headers": {"x-play": json.dumps({"file": "anthropic-messages-stream-5.sse"})}}
    messages = [{"role": "user", "content": "Hello"}]
    with client.messages.stream(
        model="claude-sonnet", max_tokens=50, messages=messages, extra_body=play | forged
    ) as stream:
        stream.until_done()
    assert gateway.counted()["requests"] == 3
    gateway.agent.told(lambda: len(gateway.plane.events(gateway.customer)) == 3)
    events = [event["usage"] for event in gateway.plane.events(gateway.customer)]
    assert {event.get("outcome", "complete") for event in events} == {"complete"}
    assert {event.get("usage_source", "provider") for event in events} == {"provider"}
    assert all(event["amounts"]["output_tokens"] for event in events)


def test_what_litellm_passes_through_unread_is_counted_too(gateway: Gateway) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": f"Bearer sk-of-{gateway.customer}"}
    answer = httpx.post(f"{gateway.url}/openai/chat/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    event = gateway.event()
    assert event["amounts"] == {
        "requests": 1, "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
    }  # fmt: skip
    assert b"allotment" not in gateway.provider.seen[0].body


# -- endings


def test_a_caller_that_leaves_a_stream_pays_what_was_streamed(gateway: Gateway) -> None:
    client = gateway.client()
    stream = gateway.ask(client, play={"file": "openai-chat-stream-1.sse", "step": 300, "pause": 0.05}, stream=True)
    next(iter(stream))
    stream.close()
    client.close()
    event = gateway.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")
    assert event["amounts"]["input_tokens"] > 0


def test_a_caller_that_leaves_before_an_answer_pays_the_prompt(gateway: Gateway) -> None:
    with pytest.raises(openai.APITimeoutError):
        gateway.ask(gateway.client().with_options(timeout=0.5), play={"hang": 20})
    event = gateway.event()
    assert (event["usage_source"], event["outcome"], event["amounts"]["output_tokens"]) == ("estimated", "aborted", 0)
    assert event["amounts"]["input_tokens"] > 0


@pytest.mark.parametrize("status", [400, 500])
def test_a_providers_error_costs_nothing_however_often_it_is_tried(gateway: Gateway, status: int) -> None:
    text = json.dumps({"error": {"message": "not today", "type": "x", "code": "y", "param": None}})
    with pytest.raises(openai.APIStatusError, match="not today"):
        gateway.ask(play={"text": text, "status": status})
    assert gateway.counted()["requests"] == 0


def test_a_fallback_that_answers_is_counted_once(gateway: Gateway) -> None:
    gateway.ask(model="broken")
    event = gateway.event()
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")
    assert event["model"].startswith("gpt-4o")


def test_each_attempt_without_an_answer_in_time_is_counted_by_its_prompt(gateway: Gateway) -> None:
    with pytest.raises(openai.APIStatusError):
        gateway.ask(model="impatient", play={"hang": 20})
    attempts = len(gateway.provider.seen)
    assert attempts >= 1
    until("nothing is held", lambda: gateway.counted() is not None)
    gateway.agent.told(lambda: len(gateway.plane.events(gateway.customer)) == attempts)
    assert {event["usage"]["outcome"] for event in gateway.plane.events(gateway.customer)} == {"error"}


def test_an_answer_from_the_cache_costs_nothing(gateway: Gateway) -> None:
    messages = [{"role": "user", "content": secrets.token_hex(8)}]
    for _ in range(2):
        gateway.ask(messages=messages, extra={"cache": {"use-cache": True}})
        gateway.counted()
    assert len(gateway.provider.seen) == 1
    assert gateway.counted()["requests"] == 1


def test_a_stream_is_cut_when_its_limit_is_reached(gateway: Gateway) -> None:
    gateway.plane.plan("short", ("out", "output_tokens", 600, "month"))
    gateway.customer = gateway.plane.customer("short")
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "lorem ipsum " * 20}, "finish_reason": None}]}  # fmt: skip
    text = ("data: " + json.dumps(chunk) + "\n\n") * 200
    got: list[Any] = []
    with pytest.raises(openai.APIError, match="gets no more"):
        got.extend(gateway.ask(play={"file": "x.sse", "text": text, "step": 1_000, "pause": 0.005}, stream=True))
    assert 400 < sum(len(one.choices[0].delta.content or "") for one in got if one.choices) <= 700
    event = gateway.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")


def test_many_calls_at_once_are_each_counted_once(gateway: Gateway) -> None:
    threads = [
        threading.Thread(target=lambda: list(gateway.ask(play={"file": "openai-chat-stream-1.sse"}, stream=True)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gateway.counted()["requests"] == 8


def test_without_an_agent_nobody_can_tell(gateway: Gateway) -> None:
    gateway.agent.kill()
    try:
        with pytest.raises(openai.APIStatusError) as refused:
            gateway.ask()
        assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "1")
        assert not gateway.provider.seen
    finally:
        gateway.agent.start()
    gateway.ask()
    assert gateway.counted()["requests"] == 1


def test_the_example_on_the_page_is_the_one_that_runs_here() -> None:
    assert (EXAMPLE / "allotment_hooks.py").read_text().endswith(example("LiteLLM's proxy"))
