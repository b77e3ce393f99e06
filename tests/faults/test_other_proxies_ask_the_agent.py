"""Proxies that others wrote ask the agent before they pass a model call on, each as `examples/` configures it: what is
refused never reaches the provider, what is passed on is as it was, and what was used is counted as far as they tell."""

from __future__ import annotations

import json
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.faults.asking import EXAMPLES, KINDS, Proxy
from tests.faults.programs import NO_TLS, Agent, ControlPlane, a_free_port, until
from tests.faults.provider import RECORDED, Provider

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is the capital of the UK?"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def agent(run: Any, plane: ControlPlane) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    one = Agent(run.root / number, plane, f"agent-{number}", more={"ALLOTMENT_HTTP_PORT": str(a_free_port())})
    run.agents.append(one)
    try:
        yield one.start()
    finally:
        one.kill()


@pytest.fixture(scope="module")
def proxies(run: Any, agent: Agent, provider: Provider) -> Iterator[dict[str, Proxy]]:
    """One of each kind, all in front of the same provider and beside the same agent."""
    started = {kind.name: Proxy(kind, run.root / kind.name) for kind in KINDS}
    try:
        for one in started.values():
            one.spawn(agent.http, provider.url)
        for one in started.values():
            one.answers()
        yield started
    finally:
        for one in started.values():
            if one.program is not None:
                one.program.stop()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def proxy(request: Any, proxies: dict[str, Proxy]) -> Proxy:
    return proxies[request.param.name]


@dataclass
class Asking:
    """One customer's calls through one proxy."""

    proxy: Any
    agent: Agent
    plane: ControlPlane
    provider: Any
    customer: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def on(self, plan: str = "roomy", *limits: tuple[Any, ...]) -> Asking:
        """As a new customer of the plan."""
        if limits:
            self.plane.plan(plan, *limits)
        self.customer = self.proxy.customers.pop()
        self.plane.put(f"/v1/customers/{self.customer}", {"name": self.customer})
        self.plane.subscribe(self.customer, plan)
        self.headers = {"authorization": f"Bearer key-of-{self.customer}", "x-user": "ann"}
        until("the agent knows the customer", self.known)
        return self

    def post(self, body: Any = BODY, path: str = CHAT, *, more: Any = (), **play: Any) -> httpx.Response:
        headers = [*self.headers.items(), ("x-play", json.dumps(play)), *more]
        return httpx.post(self.proxy.url + path, json=body, headers=headers, timeout=20, verify=NO_TLS)

    def openai(self, **play: Any) -> openai.OpenAI:
        return openai.OpenAI(
            api_key=f"key-of-{self.customer}", base_url=self.proxy.url + "/v1",
            default_headers={"x-play": json.dumps(play)},
        )  # fmt: skip

    def event(self) -> dict[str, Any]:
        """The one event of this customer."""
        (found,) = self.until_events()
        return {"usage_source": "provider", "outcome": "complete", **found["usage"]}

    def known(self) -> bool:
        with self.agent.client() as client:
            amounts = {"input_tokens": 10, "output_tokens": 10}
            code = client.check(self.customer, "chat", amounts=amounts).code
            return code not in ("customer_not_found", "no_active_subscription", "lease_unavailable")

    def used(self) -> int:
        """What is used or held of the customer's limits, as the agent sees it."""
        with self.agent.client() as client:
            return sum(limit.usage for limit in client.usage(self.customer).limits)

    def until_events(self) -> list[Any]:
        return until("an event", self._events, every_s=0.1)

    def _events(self) -> list[Any]:
        with self.agent.client() as client:  # an exchange that is needed for a stranger takes news along
            client.check(f"stranger-{secrets.token_hex(4)}", "chat")
        return self.plane.events(self.customer)


@pytest.fixture
def asking(proxy: Proxy, agent: Agent, plane: ControlPlane, provider: Provider) -> Asking:
    provider.seen.clear()
    return Asking(proxy, agent, plane, provider)


def test_a_call_is_passed_on_as_it_is_and_counted(asking: Asking) -> None:
    asking.on()
    answer = asking.post(file="openai-chat-1.json")
    assert answer.status_code == 200, answer.text
    assert answer.content == (RECORDED / "openai-chat-1.json").read_bytes()
    assert answer.headers["ratelimit"].startswith('"')
    assert answer.headers["x-request-id"] == "r-1"
    (seen,) = asking.provider.seen
    assert (seen.path, json.loads(seen.body)) == (CHAT, BODY)
    event = asking.event()
    assert (event["subject"]["user"], event["amounts"]["requests"]) == ("ann", 1)
    if asking.proxy.kind.settles:
        usage = json.loads(answer.content)["usage"]
        assert (event["usage_source"], event["outcome"], event["model"]) == (
            "provider", "complete", json.loads(answer.content)["model"],
        )  # fmt: skip
        assert event["amounts"]["input_tokens"] == usage["prompt_tokens"]
        assert event["amounts"]["output_tokens"] == usage["completion_tokens"]
    else:
        assert (event["usage_source"], event["outcome"]) == ("estimated", "complete")
        assert 10 < event["amounts"]["input_tokens"] < 2_000
        assert event["amounts"]["output_tokens"] == 512


def test_what_does_not_fit_is_402_and_never_reaches_the_provider(asking: Asking) -> None:
    asking.on("nothing-left", ("calls", "requests", 0, "month"))
    with pytest.raises(openai.APIStatusError) as refused:
        asking.openai().chat.completions.create(**BODY)
    assert refused.value.status_code == 402
    assert refused.value.body["code"] == "requested_usage_exceeds_limit"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert refused.value.response.headers["ratelimit"].startswith('"calls";r=0')
    assert not asking.provider.seen


def test_what_comes_too_fast_is_429_with_the_time_to_wait(asking: Asking) -> None:
    asking.on("slow", ("pace", "requests", 5, "minute", {"at_end": "throttle"}))
    with asking.agent.client() as client:
        client.record(asking.customer, "chat", amounts={"requests": 50})
    for _ in range(10):  # what has been lent already may go first
        refused = asking.post()
        if refused.status_code == 429:
            break
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "rate_limited"


def test_what_is_not_in_the_plan_is_403(asking: Asking) -> None:
    asking.plane.put("/v1/plans/nothing", {"name": "nothing", "features": [], "limits": []})
    answer = asking.on("nothing").post()
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "feature_not_found"
    assert not asking.provider.seen


def test_whose_key_is_unknown_is_nobody(asking: Asking) -> None:
    asking.headers = {"authorization": "Bearer key-of-nobody"}
    assert asking.post().status_code == 401
    assert not asking.provider.seen


def test_callers_cannot_say_whose_call_it_is_nor_what_it_costs(asking: Asking) -> None:
    other = asking.on().customer
    asking.on()
    more = [
        ("x-allotment-customer", other), ("X-Allotment-Customer", other), ("x-allotment-feature", "free"),
        ("x-allotment-user", "eve"), ("x-allotment-amounts", "requests=0"), ("x-allotment-settles", "yes"),
        ("x-allotment-body-bytes", "0"), ("x-allotment-tags", "team=blue"), ("x-allotment-reservation", "authz-1"),
        ("x-forwarded-method", "GET"), ("x-forwarded-uri", "/v1/models"), ("x-allotment-model", "cheap"),
        ("x-allotment-provider", "elsewhere"), ("connection", "keep-alive, x-allotment-customer"),
    ]  # fmt: skip
    assert asking.post(more=more, file="openai-chat-1.json").status_code == 200
    event = asking.event()
    assert (event["subject"]["user"], event["feature"], event.get("tags", {})) == ("ann", "chat", {})
    assert event["amounts"]["requests"] == 1
    assert event["amounts"]["input_tokens"] > 0
    assert event.get("model") != "cheap"
    assert asking.plane.events(other) == []
    (seen,) = asking.provider.seen
    assert not [name for name in seen.headers if name.startswith("x-allotment-")]


def test_a_question_that_cannot_be_right_is_told_as_such(asking: Asking) -> None:
    asking.on()
    asking.headers["x-user"] = "no name!"
    refused = asking.post()
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_request"
    assert not asking.provider.seen


def test_a_long_answer_is_counted_by_its_ends(asking: Asking) -> None:
    if not asking.proxy.kind.settles:
        return
    asking.on()
    vectors = [{"embedding": [0.5, 0.25], "index": 0, "object": "embedding"}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    text = json.dumps({"object": "list", "data": vectors, "model": "e", "usage": usage})
    answer = asking.post({"model": "e", "input": "x"}, "/v1/embeddings", text=text, stretch=400_000)
    assert answer.text == text.replace("0.5,", "0.5," * 400_000)
    event = asking.event()
    assert event["amounts"] == {"requests": 1, "input_tokens": 9, "output_tokens": 0}
    assert event["usage_source"] == "provider"


def test_what_costs_nothing_is_not_counted(asking: Asking) -> None:
    asking.on("none", ("calls", "requests", 0, "month"))
    answer = httpx.get(asking.proxy.url + "/v1/models", headers=asking.headers, verify=NO_TLS)
    assert answer.status_code == 200
    more = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    httpx.get(asking.proxy.url + "/v1/realtime", headers=asking.headers | more, verify=NO_TLS)
    for seen in asking.provider.seen:
        assert "upgrade" not in seen.headers, "what goes through a WebSocket nobody would count"
    assert asking.post().status_code == 402
    for path in ("/v1/files/../chat/completions", "/v1/chat/completions/..%2f..%2ffiles", "//v1/files"):
        raw = httpx.URL(asking.proxy.url).copy_with(raw_path=path.encode())
        answer = httpx.post(raw, json=BODY, headers=asking.headers, timeout=20, verify=NO_TLS)
        assert answer.status_code in (400, 402), path


def test_streams_come_as_they_are_made(asking: Asking) -> None:
    asking.on()
    stream = asking.openai(file="openai-chat-stream-1.sse", step=500, pause=0.05).chat.completions.create(
        **BODY, stream=True, stream_options={"include_usage": True}
    )
    at = [time.monotonic() for _ in stream]
    assert at[-1] - at[0] > 0.1
    event = asking.event()
    if asking.proxy.kind.settles:
        assert (event["usage_source"], event["outcome"]) == ("provider", "complete")


def test_the_providers_errors_are_passed_on(asking: Asking) -> None:
    asking.on()
    text = json.dumps({"error": {"message": "not today", "type": "x", "code": "y", "param": None}})
    for status in (403, 429, 500):
        answer = asking.post(text=text, status=status, headers={"retry-after": "7"})
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (status, text, "7")
    if asking.proxy.kind.settles:
        until("nothing is held", lambda: asking.used() == 0)
        asking.agent.uploaded()
        assert asking.plane.events(asking.customer) == []


def test_a_caller_that_goes_is_counted_what_was_streamed(asking: Asking) -> None:
    if not asking.proxy.kind.settles:
        return  # counted before it began, and that stays
    asking.on()
    client = asking.openai(file="openai-chat-stream-1.sse", step=400, pause=0.05)
    stream = client.chat.completions.create(**BODY, stream=True)
    next(iter(stream))
    stream.close()
    client.close()
    until("the provider is left", lambda: asking.provider.seen[0].ended == "went")
    if not asking.proxy.kind.sees_aborts:
        assert asking.used() > 0, "held until it ends by its time"
        assert asking.plane.events(asking.customer) == []
        return
    event = asking.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")
    assert event["amounts"]["input_tokens"] > 0


def test_a_caller_that_goes_before_the_first_byte_pays_its_prompt(asking: Asking) -> None:
    if not asking.proxy.kind.sees_aborts:
        return
    asking.on()
    headers = {**asking.headers, "x-play": json.dumps({"hang": 10})}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(asking.proxy.url + CHAT, json=BODY, headers=headers, timeout=0.3, verify=NO_TLS)
    event = asking.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "error")
    assert event["amounts"]["input_tokens"] > 0
    assert event["amounts"]["output_tokens"] == 0


def test_a_provider_that_breaks_off_is_no_whole_answer(asking: Asking) -> None:
    if not asking.proxy.kind.settles:
        return
    asking.on()
    client = asking.openai(file="openai-chat-stream-1.sse", step=300, cut=900)
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|Connection"):
        list(client.chat.completions.create(**BODY, stream=True))
    if asking.proxy.kind.sees_aborts:
        event = asking.event()
        assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")


def test_large_requests_are_held_by_their_size(asking: Asking) -> None:
    asking.on("bounded", ("in", "input_tokens", 100_000, "month"))
    text = "lorem ipsum " * 50_000
    answer = asking.post({"model": "m", "messages": [{"role": "user", "content": text}]})
    assert answer.status_code == 402
    assert not asking.provider.seen


def asked_as_by_traefik(agent: Agent, customer: str, caller: dict[str, str], body: bytes) -> httpx.Response:
    """What Traefik sends for a caller's call, as its source has it (``pkg/middlewares/auth/forward.go`` of version
    3). No package index has a Traefik to start: its configuration is read, and its request made, here."""
    page = yaml.safe_load((EXAMPLES / "traefik" / "dynamic.yaml").read_text())
    ask = page["http"]["middlewares"]["ask"]["forwardAuth"]
    ours = page["http"]["middlewares"]["acme"]["headers"]["customRequestHeaders"]
    assert page["http"]["routers"]["acme"]["middlewares"] == ["acme", "ask", "strip"]
    assert ask["address"].endswith(":8401/v1/authz")
    headers = {name.lower(): value for name, value in caller.items()}
    headers |= {name.lower(): value.replace("acme", customer) for name, value in ours.items()}
    sent = {name: headers[name.lower()] for name in ask["authRequestHeaders"] if name.lower() in headers}
    sent |= {
        "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Method": "POST", "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "127.0.0.1:8080", "X-Forwarded-Uri": CHAT, "Accept-Encoding": "gzip",
        "User-Agent": "Go-http-client/1.1",
    }  # fmt: skip
    url = f"http://127.0.0.1:{agent.more['ALLOTMENT_HTTP_PORT']}/v1/authz"
    parts = iter([body]) if ask["forwardBody"] and len(body) <= ask["maxBodySize"] else None
    return httpx.request("GET", url, headers=sent, content=parts, timeout=20, verify=NO_TLS)


def test_traefiks_question_is_answered(agent: Agent, plane: ControlPlane) -> None:
    customer = plane.customer()
    agent.serves(customer)
    caller = {
        "Authorization": "Bearer key-of-acme", "Content-Type": "application/json",
        "X-Allotment-Customer": "other", "X-Allotment-Amounts": "requests=0", "X-Forwarded-Uri": "/v1/models",
    }  # fmt: skip
    answer = asked_as_by_traefik(agent, customer, caller, json.dumps({**BODY, "max_tokens": 40}).encode())
    assert (answer.status_code, answer.json()["decision"]) == (200, "allow")
    (event,) = Asking(None, agent, plane, None, customer=customer).until_events()
    assert event["usage"]["amounts"]["output_tokens"] == 40
    assert event["usage"]["model"] == BODY["model"]
    plane.plan("nothing-for-traefik", ("calls", "requests", 0, "month"))
    customer = plane.customer("nothing-for-traefik")
    until("the agent knows the customer", lambda: Asking(None, agent, plane, None, customer=customer).known())
    refused = asked_as_by_traefik(agent, customer, caller, json.dumps(BODY).encode())
    assert (refused.status_code, refused.json()["limiting"]) == (402, "calls")


def test_no_proxy_lets_anything_pass_while_the_agent_does_not_answer(
    proxies: dict[str, Proxy], agent: Agent, plane: ControlPlane, provider: Provider
) -> None:
    each = [Asking(proxy, agent, plane, provider).on() for proxy in proxies.values()]
    provider.seen.clear()
    assert agent.program is not None
    with ThreadPoolExecutor() as callers:
        agent.program.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        hung = list(callers.map(Asking.post, each))
        assert time.monotonic() - begun < 8
        agent.kill()
        away = list(callers.map(Asking.post, each))
    for answers in (hung, away):
        assert {one.proxy.kind.name: answer.status_code for one, answer in zip(each, answers, strict=True)} == {
            name: proxy.kind.closed for name, proxy in proxies.items()
        }
    assert not provider.seen
    agent.start()
    for one in each:
        until(f"{one.proxy.kind.name} asks again", lambda one=one: one.post().status_code == 200)


def test_a_provider_that_is_not_there_costs_nothing(
    proxies: dict[str, Proxy], agent: Agent, plane: ControlPlane, provider: Provider
) -> None:
    """The last one: the provider does not come back."""
    each = [Asking(proxy, agent, plane, provider).on() for proxy in proxies.values()]
    provider.shutdown()
    provider.server_close()
    with ThreadPoolExecutor() as callers:
        answers = list(callers.map(Asking.post, each))
    for one, answer in zip(each, answers, strict=True):
        assert answer.status_code in (502, 503), one.proxy.kind.name
        if one.proxy.kind.settles:
            until(f"{one.proxy.kind.name} holds nothing", lambda one=one: one.used() == 0)
            assert plane.events(one.customer) == []
