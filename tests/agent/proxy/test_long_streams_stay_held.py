"""A stream through the proxy may go on for long; what is held for it does not run out under it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import trio
import trio.testing

from agent.core.fetched import Answers
from agent.operations.expire import expire
from agent.proxy.forward import Asked, Forwarder
from agent.proxy.lines import Lines
from protocol.admission import Estimate
from protocol.entitlements import Limit
from protocol.local_messages import Settle
from protocol.windows import WindowKind
from tests.agent.test_model_calls_are_read_here import Caller

CHUNKS, PAUSE_S = 20, 100
BODY = json.dumps({"model": "m-1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
WHOSE = [(b"x-allotment-customer", b"acme"), (b"x-allotment-feature", b"chat"), (b"content-type", b"application/json")]


class Slow(httpx.AsyncByteStream):
    """Half an hour of an answer."""

    def __init__(self, come: Any) -> None:
        self._come = come

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(CHUNKS):
            await trio.sleep(PAUSE_S)
            self._come()
            word = {"choices": [{"index": 0, "delta": {"content": f"word {number} "}}]}
            yield b"data: " + json.dumps(word).encode() + b"\n\n"


class Provider(httpx.AsyncBaseTransport):
    def __init__(self, come: Any) -> None:
        self._come = come

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Slow(self._come))


class Reader:
    """Takes whatever comes."""

    text = b""

    async def refuse(self, reply: Any, _: Any = ()) -> None:
        raise AssertionError(reply)

    async def begin(self, status: int, _: Any) -> None:
        assert status == 200

    async def send(self, chunk: bytes) -> None:
        self.text += chunk

    async def end(self) -> None:
        self.text += b"END"

    async def break_off(self) -> None:
        raise AssertionError("it is whole")


def test_a_stream_that_holds_its_worst_for_half_an_hour_is_neither_charged_as_expired_nor_cut(bench: Any) -> None:
    caller, reader, endings = Caller(bench), Reader(), []
    bench.entitle(Limit("out", "output_tokens", 20_000, WindowKind.DAY, estimate=Estimate.WORST))

    def come() -> None:
        bench.now_ms += PAUSE_S * 1_000
        expire(bench.books, bench.now_ms, bench.wall_ms)

    forwarder = Forwarder(
        lambda request, _: caller.say(request),
        endings.append,
        lambda: "1",
        {"openai": "http://provider.example"},
        None,
        None,
        Estimate.SLICES,
        Lines(lambda: Provider(come)),
        bench.books.estimates,
        Answers(),
        vendor_headers=False,
    )
    asked = Asked("POST", "/openai/v1/chat/completions", WHOSE, BODY)
    trio.run(forwarder.forward, asked, reader, clock=trio.testing.MockClock(autojump_threshold=0))
    assert reader.text.endswith(b"END")
    assert b"word 19" in reader.text
    (ending,) = endings
    assert isinstance(ending, Settle)
    assert bench.books.reservations.get("proxy-1").amounts["output_tokens"] == 16_384
    assert not caller.counted()
