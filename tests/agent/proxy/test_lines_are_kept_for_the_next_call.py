"""Connections to providers: one call on each at a time, the one used last first, and none kept for ever."""

from __future__ import annotations

import httpx
import trio
import trio.testing

from agent.proxy.lines import IDLE_MAX, KEEPALIVE_S, Lines


class Line(httpx.AsyncBaseTransport):
    closed = False

    async def aclose(self) -> None:
        self.closed = True


def run(story) -> list[Line]:
    made: list[Line] = []

    def open_line() -> Line:
        made.append(Line())
        return made[-1]

    trio.run(story, Lines(open_line), clock=trio.testing.MockClock(autojump_threshold=0))
    return made


def test_a_line_is_used_again_once_its_call_has_ended_and_by_its_provider_alone() -> None:
    async def story(lines: Lines) -> None:
        async with lines.line("openai") as first, lines.line("openai") as second:
            assert first is not second
        async with lines.line("openai") as again:
            assert again is first, "the one that was used last"
        async with lines.line("anthropic") as other:
            assert other not in (first, second)

    assert len(run(story)) == 3


def test_a_call_that_fails_gives_its_line_back() -> None:
    async def story(lines: Lines) -> None:
        for _ in range(3):
            try:
                async with lines.line("openai"):
                    raise httpx.ReadError("cut")
            except httpx.ReadError:
                pass

    assert len(run(story)) == 1


def test_lines_that_nobody_needs_any_longer_are_closed() -> None:
    async def story(lines: Lines) -> None:
        async with lines.line("openai"), lines.line("openai"), lines.line("openai"):
            pass
        await trio.sleep(KEEPALIVE_S + 1)
        async with lines.line("openai"):
            pass

    assert sorted(line.closed for line in run(story)) == [False, True, True]


def test_no_more_are_kept_than_a_bound() -> None:
    async def story(lines: Lines) -> None:
        async def call() -> None:
            async with lines.line("openai"):
                await trio.sleep(1)

        async with trio.open_nursery() as calls:
            for _ in range(IDLE_MAX + 7):
                calls.start_soon(call)

    assert sum(line.closed for line in run(story)) == 7
