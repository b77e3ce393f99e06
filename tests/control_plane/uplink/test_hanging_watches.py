"""The change feed in memory: who is woken by what, and how soon; on asyncio and on Trio."""

from __future__ import annotations

import time
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from control_plane.access import Doorkeeper
from control_plane.background import run_background
from control_plane.operations.watch_changes import ROWS_MAX, ChangeFeed
from control_plane.store import changes
from control_plane.store.changes import Bounds, Change, Numbered
from control_plane.store.database import Database
from protocol.entitlements import CustomerStatus, Entitlement
from protocol.uplink_messages import WatchReply

READ_MS = 70_000
PAUSED = Entitlement("acme", 4, CustomerStatus.PAUSED, "pro")

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def feed_at(newest: int) -> ChangeFeed:
    feed = ChangeFeed()
    feed.begin(Bounds(1, newest))
    return feed


async def answer_to(
    feed: ChangeFeed,
    agent: str,
    cursor: int,
    rows: list[Numbered],
    entitlements: dict[str, Entitlement] | None = None,
    arrived_ms: int | None = None,
) -> WatchReply:
    """What a watch that hangs when ``rows`` arrive is answered."""
    answers: list[WatchReply] = []

    async def watch() -> None:
        answers.append(await feed.wait(agent, cursor, 5_000, arrived_ms))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        assert not answers
        feed.take(rows, entitlements or {}, READ_MS)
    return answers[0]


async def test_news_wakes_a_watch() -> None:
    rows = [Numbered(6, "acme", changes.ENTITLEMENT, None), Numbered(7, "bolt", changes.RETURNED, None)]
    assert await answer_to(feed_at(5), "a", 5, rows) == WatchReply(7, ("acme",), False, ("bolt",))


async def test_what_is_new_comes_along_for_those_who_asked_for_it() -> None:
    rows = [Numbered(6, "acme", changes.ENTITLEMENT, None), Numbered(7, "bolt", changes.ENTITLEMENT, None)]
    named = WatchReply(7, ("acme", "bolt"))
    assert await answer_to(feed_at(5), "a", 5, rows, {"acme": PAUSED}) == named
    told = await answer_to(feed_at(5), "a", 5, rows, {"acme": PAUSED}, READ_MS - 900)
    assert told == msgspec.structs.replace(named, entitlements=(PAUSED,), waited_ms=900)


async def test_what_was_read_before_a_watch_came_is_not_passed_on() -> None:
    feed = feed_at(5)
    feed.take([Numbered(6, "acme", changes.ENTITLEMENT, None)], {"acme": PAUSED}, READ_MS)
    assert await feed.wait("a", 5, 5_000, READ_MS + 1) == WatchReply(6, ("acme",))
    feed.take([Numbered(7, "acme", changes.RETURNED, None)], {}, READ_MS + 50)
    assert not (await feed.wait("a", 5, 5_000, READ_MS)).entitlements, "nor what newer rows may have changed"


async def test_a_recall_concerns_only_its_agent() -> None:
    recall = [Numbered(6, "acme", changes.RECALL, "b")]
    assert await answer_to(feed_at(5), "b", 5, recall) == WatchReply(6, recall=True)
    feed = feed_at(5)
    feed.take(recall, {}, READ_MS)
    assert await feed.wait("a", 5, 1) == WatchReply(6)


async def test_what_came_between_two_watches_is_answered_at_once() -> None:
    feed = feed_at(5)
    feed.take(
        [Numbered(6, "acme", changes.ENTITLEMENT, None), Numbered(7, "acme", changes.ENTITLEMENT, None)], {}, READ_MS
    )
    assert await feed.wait("a", 5, 5_000) == WatchReply(7, ("acme",))


async def test_unknown_positions_begin_anew() -> None:
    feed = feed_at(5)
    assert (await feed.wait("a", 4, 0)).reset
    feed.take([Numbered(6 + at, "acme", changes.RETURNED, None) for at in range(2 * ROWS_MAX + 1)], {}, READ_MS)
    assert (await feed.wait("a", 5, 0)).reset
    assert not (await feed.wait("a", feed.newest - ROWS_MAX, 0)).reset
    assert (await feed.wait("a", feed.newest + 1, 0)).reset


async def test_more_customers_than_an_answer_holds_begin_anew() -> None:
    feed = feed_at(0)
    feed.take([Numbered(1 + at, f"c{at}", changes.ENTITLEMENT, None) for at in range(1_001)], {}, READ_MS)
    assert await feed.wait("a", 0, 0) == WatchReply(1_001, reset=True)


async def test_a_position_that_another_replica_told_is_waited_for() -> None:
    feed = feed_at(5)
    assert await answer_to(feed, "a", 6, [Numbered(7, "acme", changes.ENTITLEMENT, None)]) == WatchReply(7, ("acme",))


async def test_an_agent_that_watches_again_gives_up_its_first_watches() -> None:
    feed = feed_at(5)
    answered = 0

    async def watch() -> None:
        nonlocal answered
        await feed.wait("a", 5, 5_000)
        answered += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        assert answered == 3
        feed.close()
    assert answered == 5


async def test_closing_answers_everybody() -> None:
    feed = feed_at(5)
    feed.close()
    assert await feed.wait("a", 5, 5_000) == WatchReply(5)


async def test_a_thousand_watches_hang_without_threads_or_connections_and_hear_of_another_process_in_time(
    database: Database, clock: Any
) -> None:
    other = Database(str(database.url.render_as_string(hide_password=False)))
    heard: list[float] = []
    feed = ChangeFeed()

    async def watch(agent: str, cursor: int) -> None:
        reply = await feed.wait(agent, cursor, 20_000)
        assert reply.customers == ("acme",)
        heard.append(time.monotonic())

    def change() -> None:
        with other.transaction() as connection:
            changes.append(connection, [Change("acme", changes.ENTITLEMENT)], clock.now_ms())

    with anyio.fail_after(30):
        async with anyio.create_task_group() as background:
            background.start_soon(run_background, database, clock, feed, Doorkeeper(database, clock))
            cursor = (await feed.wait("a", -1, 0)).cursor
            async with anyio.create_task_group() as watches:
                for number in range(1_000):
                    watches.start_soon(watch, f"agent-{number}", cursor)
                await anyio.lowlevel.checkpoint()
                await anyio.to_thread.run_sync(change)
                changed_at = time.monotonic()
            background.cancel_scope.cancel()
    other.dispose()
    assert len(heard) == 1_000
    assert min(heard) - changed_at < 2  # a tenth of a second, where nobody else uses the machine
