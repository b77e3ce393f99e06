"""Routes of real ASGI applications behind ``Gate``: in uvicorn, with a real agent, asked by clients of others."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import litestar
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from allotment import AsyncClient
from allotment.attribution import attribution
from allotment.integrations.asgi import Gate
from tests.faults.pages import run_example
from tests.faults.programs import Agent, a_free_port, until

ROUTES = {"/summarize": "chat", "/free": "nothing", "/talk": "chat", "/a/b/deep": "nothing", "/a/b": "chat"}


def starlette_app(lived: list[str]) -> Starlette:
    async def summarize(request: Request) -> JSONResponse:
        lived.append(f"for {attribution().customer}")
        return JSONResponse({"text": "short"}, int(request.query_params.get("status", "200")))

    async def breaks(_: Request) -> JSONResponse:
        raise RuntimeError("the application fails")

    async def tells(request: Request) -> JSONResponse:
        request.scope["allotment"].report(tokens={"input": 7, "output": 3}, model="m-1")
        return JSONResponse({})

    async def streams(_: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(3):
                yield b"%d" % at

        return StreamingResponse(pieces())

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        lived.append("began")
        yield
        lived.append("ended")

    below = [Route("/summarize", summarize, methods=["GET", "POST", "OPTIONS"]), Route("/summarize/breaks", breaks)]
    more = [Route("/summarize/tells", tells), Route("/summarize/streams", streams), Route("/open", summarize)]
    deep = Mount("/a", routes=[Route("/b", summarize), Route("/b/deep", summarize)])
    return Starlette(routes=[*below, *more, deep, WebSocketRoute("/talk", talk)], lifespan=lifespan)


def litestar_app(lived: list[str]) -> litestar.Litestar:
    @litestar.route("/summarize", http_method=["GET", "POST", "OPTIONS"])
    async def summarize(request: litestar.Request[Any, Any, Any]) -> litestar.Response[dict[str, str]]:
        return litestar.Response({"text": "short"}, status_code=int(request.query_params.get("status", "200")))

    @litestar.get("/summarize/breaks")
    async def breaks() -> None:
        raise RuntimeError("the application fails")

    @litestar.get("/summarize/tells")
    async def tells(request: litestar.Request[Any, Any, Any]) -> dict[str, str]:
        request.scope["allotment"].report(tokens={"input": 7, "output": 3}, model="m-1")
        return {}

    @litestar.get("/summarize/streams")
    async def streams() -> litestar.response.Stream:
        return litestar.response.Stream(iter(["0", "1", "2"]))

    @litestar.get("/open")
    async def open_route() -> dict[str, str]:
        return {"text": "short"}

    @litestar.get(["/a/b", "/a/b/deep"])
    async def deep() -> dict[str, str]:
        return {}

    @litestar.websocket("/talk")
    async def talk(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    return litestar.Litestar(
        [summarize, breaks, tells, streams, open_route, deep, talk],
        on_startup=[lambda: lived.append("began")], on_shutdown=[lambda: lived.append("ended")],
    )  # fmt: skip


@contextlib.contextmanager
def served(app: Any, **more: Any) -> Iterator[str]:
    """An application in uvicorn, on a loopback port."""
    port = a_free_port()
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical", lifespan="on", **more))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until("the server listens", lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@dataclass
class Site:
    """One application behind a gate, and what its agent has been told."""

    plane: Any
    agent: Agent
    address: str
    customer: str

    def ask(self, path: str, method: str = "GET", customer: str | None = None, **headers: str) -> httpx.Response:
        named = {"x-customer": customer or self.customer} | headers
        return httpx.request(method, f"http://{self.address}{path}", headers=named, timeout=30)

    def refused(self, path: str, status: int) -> httpx.Response:
        """The refusal, once the control plane has had its say: while it is slow, nobody can tell (503)."""
        answers: list[httpx.Response] = []

        def asked() -> bool:
            answers.append(self.ask(path))
            return answers[-1].status_code != 503

        until("it is decided", asked)
        assert answers[-1].status_code == status, answers[-1].text
        return answers[-1]

    def requests(self) -> int:
        """What the agent has counted, once nothing is held any longer."""
        until("nothing is held", lambda: self.agent.status().reservations == 0)
        with self.agent.client() as client:
            limits = client.usage(self.customer).limits
        return next(limit.usage for limit in limits if limit.meter == "requests")

    def event(self) -> dict[str, Any]:
        """The customer's one event, once nothing is held any longer."""
        until("nothing is held", lambda: self.agent.status().reservations == 0)
        self.agent.told(lambda: self.agent.status().outbox_events == 0 and self.plane.events(self.customer))
        (event,) = self.plane.events(self.customer)
        usage: dict[str, Any] = event["usage"]
        return usage


@pytest.fixture(scope="module")
def agent(run: Any, plane: Any) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    made = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(made)
    plane.plan("one-request", ("requests", "requests", 1, "month"))
    yield made.start()
    made.kill()


@pytest.fixture(scope="module", params=[starlette_app, litestar_app], ids=["starlette", "litestar"])
def address(request: pytest.FixtureRequest, agent: Agent) -> Iterator[str]:
    lived: list[str] = []
    app: Callable[[list[str]], Any] = request.param
    gate = Gate(app(lived), ROUTES, customer="x-customer", client=AsyncClient(str(agent.frames)))
    with served(gate) as where:
        yield where
    assert [lived[0], lived[-1]] == ["began", "ended"]


@pytest.fixture
def site(address: str, agent: Agent, plane: Any) -> Site:
    return Site(plane, agent, address, plane.customer())


def test_an_allowed_request_reaches_the_application_and_counts_once(site: Site) -> None:
    answer = site.ask("/summarize", "POST")
    assert answer.json() == {"text": "short"}
    assert answer.headers["ratelimit"].startswith('"')
    assert site.requests() == 1


def test_a_feature_that_is_not_in_the_plan_is_refused_and_says_so(site: Site) -> None:
    for path in ("/free", "/a/b/deep", "//free/", "/free/below"):
        refused = site.ask(path)
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json"), path
        assert refused.json()["code"] in ("feature_not_found", "feature_unavailable")
        assert refused.json()["error"]["message"]
    assert site.requests() == 0


def test_paths_below_a_gated_one_are_gated_and_others_are_open(site: Site) -> None:
    assert site.ask("/open", customer="nobody-knows").status_code == 200
    assert site.ask("/summarize/streams", customer="nobody-knows").status_code == 403
    assert site.ask("/summarizer", customer="nobody-knows").status_code == 404
    assert site.ask("/a/b").status_code == 200
    assert site.requests() == 1


def test_what_is_used_up_is_refused_until_when(site: Site) -> None:
    site.customer = site.plane.customer("one-request")
    assert site.ask("/summarize").status_code == 200
    refused = site.refused("/summarize", 402)
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["limiting"] == "requests"
    assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert site.requests() == 1


def test_what_the_application_answers_with_an_error_is_not_counted(site: Site) -> None:
    site.customer = site.plane.customer("one-request")
    for path in ("/summarize?status=404", "/summarize?status=503", "/summarize/breaks", "/summarize?status=422"):
        assert site.ask(path).status_code >= 400
    assert site.requests() == 0
    assert site.ask("/summarize").status_code == 200


def test_the_application_may_say_what_it_used(site: Site) -> None:
    assert site.ask("/summarize/tells").status_code == 200
    event = site.event()
    assert event["amounts"] == {"requests": 1, "input_tokens": 7, "output_tokens": 3}
    assert event["model"] == "m-1"


def test_a_stream_passes_and_counts_once(site: Site) -> None:
    assert site.ask("/summarize/streams").text == "012"
    assert site.requests() == 1


def test_a_browsers_preflight_is_not_asked_about(site: Site) -> None:
    assert site.ask("/summarize", "OPTIONS", customer="nobody-knows").status_code < 400
    assert site.requests() == 0


@pytest.mark.parametrize("name", ["", "two words", "no/such", "x" * 200])
def test_a_customer_that_cannot_be_is_said_and_never_a_fault(site: Site, name: str) -> None:
    refused = site.ask("/summarize", **{"x-customer": name})
    assert refused.status_code in (400, 403)
    assert refused.json()["code"] in ("customer_unknown", "invalid_request")


def test_two_customers_at_once_are_nobody(site: Site) -> None:
    headers = [("x-customer", site.customer), ("x-customer", "another")]
    refused = httpx.get(f"http://{site.address}/summarize", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "customer_unknown")


def test_a_websocket_opens_when_it_may_and_counts_once(site: Site) -> None:
    with connect(f"ws://{site.address}/talk", additional_headers={"x-customer": site.customer}) as socket:
        assert socket.recv() == "hello"
    assert site.requests() == 1


def test_a_websocket_that_may_not_open_is_refused_before_it_does(site: Site) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{site.address}/talk", additional_headers={"x-customer": "nobody-knows"})
    assert refused.value.response.status_code == 403
    assert b"customer_not_found" in (refused.value.response.body or b"")
    assert site.requests() == 0


def test_a_gate_that_only_looks_counts_nothing(site: Site, agent: Agent) -> None:
    client = AsyncClient(str(agent.frames))
    gate = Gate(starlette_app([]), ROUTES, customer=lambda _: site.customer, count=False, client=client)
    with served(gate) as site.address:
        assert site.ask("/summarize").status_code == 200
        assert site.ask("/free").status_code == 403
    assert site.requests() == 0


def test_a_function_may_say_whose_request_it_is_and_of_which_user(site: Site, agent: Agent) -> None:
    async def customer(scope: Any) -> str | None:
        return site.customer if b"let me in" in dict(scope["headers"]).get(b"authorization", b"") else None

    client = AsyncClient(str(agent.frames))
    lived: list[str] = []
    gate = Gate(starlette_app(lived), ROUTES, customer=customer, user="x-user", client=client)
    with served(gate, root_path="/api") as site.address:
        assert site.ask("/summarize").json()["code"] == "customer_unknown"
        assert site.ask("/summarize", authorization="let me in", **{"x-user": "ann"}).status_code == 200
    event = site.event()
    assert event["subject"]["user"] == "ann"
    assert f"for {site.customer}" in lived, "model calls that it makes are this customer's"


def test_without_an_agent_nobody_can_tell(site: Site, agent: Agent) -> None:
    client = AsyncClient(str(agent.folder / "nowhere.sock"), timeout_s=0.2)
    with served(Gate(starlette_app([]), ROUTES, customer="x-customer", client=client)) as site.address:
        refused = site.ask("/summarize")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["code"] == "agent_unavailable"
        assert "nowhere" not in refused.text
        assert site.ask("/open").status_code == 200


def test_a_route_that_is_no_path_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="'summarize' is not a path"):
        Gate(starlette_app([]), {"summarize": "chat"}, customer="x-customer")


def test_the_example_on_the_page_runs(site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(agent.frames))
    with served(run_example("A route is a feature", site.customer)["app"]) as site.address:
        assert site.ask("/summarize").json() == {"summary": "..."}
    assert site.requests() == 1
