"""The real exchange loop and journal before a control plane that does as told: nonsense, silence, bad timing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent.background.one_thread import OneThread
from agent.background.sync import Syncer
from agent.background.watch import take_note, watch
from agent.background.write_events import Writer
from agent.core.books import Books
from agent.operations.adopt_sync import PASSED_OVER_MS
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from agent.store.ballast import Ballast
from agent.store.journal import GENERATION, open_journal
from agent.store.outbox import Outbox
from agent.uplink import QuarantinedError, Uplink, UplinkDownError, UplinkRefusedError
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import CustomerStatus, Entitlement, Limit
from protocol.local_messages import Call, Reserve, Settle
from protocol.uplink_messages import (
    SYNC_PATH,
    WATCH_PATH,
    CustomerSync,
    EnrollRequest,
    HighWater,
    SyncReply,
    SyncRequest,
    WatchReply,
)
from protocol.windows import WindowKind

_request = MsgpackDecoder(SyncRequest)
SYNC = SyncRequest("journal", 1, "nonce", snapshot=True)
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def uplink(handler) -> Uplink:
    return Uplink("http://control-plane.example", None, httpx.MockTransport(handler))


def ask(handler, what: str = "sync"):
    """One request of a kind, answered by ``handler``."""

    async def story():
        async with uplink(handler) as line:
            if what == "enroll":
                return await line.enroll(EnrollRequest("alt_join_0123456789ab_x", "agent-1"))
            return await (line.sync(SYNC) if what == "sync" else line.watch(-1))

    return trio.run(story)


def says(status: int, body: bytes = b"", **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, content=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


PROBLEM = {"content_type": "application/problem+json"}


@pytest.mark.parametrize("what", ["sync", "watch", "enroll"])
@pytest.mark.parametrize(
    "answer",
    [
        says(200, b"<html>Sign in</html>", content_type="text/html"),
        says(200),
        says(204),
        says(200, b"\x93\x01\x02\x03"),
        says(200, b"\x8a\xaahigh_water"),
        says(200, b"\xc1"),
        says(200, b"\xdd\xff\xff\xff\xff"),
        says(200, b"[" * 100_000),
        says(200, b"\x91" * 100_000),
        says(200, b"\x00" * (33 * 1024 * 1024)),
        says(200, b"not gzip", content_encoding="gzip"),
        says(301, location="http://169.254.169.254/"),
        says(400, b'{"code": "snapshot_required"}', **PROBLEM),
        says(401, b"Sign in first"),
        says(403, b"<html>Forbidden by proxy</html>", content_type="text/html"),
        says(404),
        says(409, b'{"code": "something_else"}', **PROBLEM),
        says(409, b"[[[", **PROBLEM),
        says(413),
        says(429, retry_after="1"),
        says(500, b"oops"),
        says(503, b'{"code": [], "detail": {}}', **PROBLEM),
    ],
    ids=range(22),
)
def test_nonsense_is_a_control_plane_that_is_down(what, answer) -> None:
    with pytest.raises(UplinkDownError):
        ask(answer, what)


@pytest.mark.parametrize("what", ["sync", "watch", "enroll"])
@pytest.mark.parametrize("status", [401, 403])
def test_refusal_and_quarantine_are_told_apart_from_being_down(what, status) -> None:
    with pytest.raises(UplinkRefusedError, match=f"{status} unauthenticated: no"):
        ask(says(status, b'{"code": "unauthenticated", "detail": "no"}', **PROBLEM), what)
    with pytest.raises(QuarantinedError, match="copied"):
        ask(says(409, b'{"code": "journal_quarantined", "detail": "copied"}', **PROBLEM), what)


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("cut"), httpx.PoolTimeout("")],
)
def test_what_goes_wrong_on_the_line_is_down_and_says_what(error) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(UplinkDownError, match=type(error).__name__):
        ask(fail)


def test_answer_that_drips_for_ever_is_given_up() -> None:
    async def drip():
        while True:
            await trio.sleep(10)
            yield b"\x80"

    async def story() -> float:
        async with uplink(lambda _: httpx.Response(200, content=drip())) as line:
            started = trio.current_time()
            with pytest.raises(UplinkDownError, match="too slowly"):
                await line.sync(SYNC)
            return trio.current_time() - started

    assert 30 < trio.run(story, clock=MockClock(autojump_threshold=0)) < 120


def test_token_goes_into_the_header_and_nowhere_else() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401, json={"code": "unauthenticated"})

    async def story() -> None:
        async with uplink(answer) as line:
            line.token = "alt_agent_0123456789ab_verysecret"
            with pytest.raises(UplinkRefusedError) as refused:
                await line.sync(SYNC)
            assert "verysecret" not in str(refused.value)

    trio.run(story)
    assert seen[0].headers["authorization"] == "Bearer alt_agent_0123456789ab_verysecret"
    assert "verysecret" not in str(seen[0].url)
    assert b"verysecret" not in seen[0].content


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def monotonic_ms(self) -> int:
        return self.now

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.now


class Stage:
    """Exchange loop, writer and journal as ``main`` wires them; the control plane is a function."""

    def __init__(self, bench, folder: Path, answer) -> None:
        (folder / "stage").mkdir()
        self.bench = bench
        self.clock = Clock()
        self.uplink = uplink(answer)
        self.journal = open_journal(folder / "stage")
        self.books = Books("agent-1", "journal", 1, "nonce1", confirmed_at_ms=self.clock.now)
        outbox, thread = Outbox(), OneThread("test-journal")
        self.outbox = outbox
        self.writer = Writer(self.books, self.journal, thread, outbox, Ballast(folder / "stage"), self.clock)
        self.syncer = Syncer(self.books, self.journal, thread, outbox, self.writer, self.uplink, self.clock)
        self.books.wake_sync, self.books.tell_sync = self.syncer.hurry, self.syncer.look

    def ask(self, name: str) -> object:
        request = Reserve(reservation=name, call=Call("acme", "chat"), amounts={"output_tokens": 5})
        return reserve(self.books, request, self.clock.now, self.clock.now + 1_000)


async def until_reserved(stage: Stage, name: str) -> None:
    """Reserve, exchanging and writing for as long as that takes."""
    while stage.ask(name) is None:
        await stage.syncer.exchange(stopping=False)
        await stage.writer.write_once()


def test_change_heard_of_while_an_exchange_is_under_way_is_asked_about_again(bench, tmp_path) -> None:
    """The answer may be older than the change: only what was noted before the request left is ticked off by it."""
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    named: list[set[str]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        said = _request(await request.aread())
        named.append({customer.customer for customer in said.customers})
        reply = bench.lender.answer(said)
        if len(named) == 2:
            bench.entitle(Limit("tokens", "output_tokens", 900, WindowKind.DAY), version=2)
            take_note(stage.books, WatchReply(7, ("acme",), recall=True), 0, 0)
        return httpx.Response(200, content=encode_msgpack(reply))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink:
            stage.ask("r1")
            await stage.syncer.exchange(stopping=False)
            stage.books.look_again.add("acme")
            await stage.syncer.exchange(stopping=False)
            assert stage.books.look_again == {"acme"}
            assert stage.books.report_all
            await stage.syncer.exchange(stopping=False)

    trio.run(story)
    stage.journal.close()
    assert named == [{"acme"}, {"acme"}, {"acme"}]
    assert stage.books.customers["acme"].entitlement.version == 2
    assert not stage.books.look_again


def test_an_entitlement_that_comes_with_a_watch_is_in_force_at_once_and_asked_about_after_that(bench, tmp_path) -> None:
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    heard: list[tuple[CustomerSync, ...]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        said = _request(await request.aread())
        heard.append(said.customers)
        return httpx.Response(200, content=encode_msgpack(bench.lender.answer(said)))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink:
            stage.ask("r1")
            await stage.syncer.exchange(stopping=False)
            bench.entitle(Limit("tokens", "output_tokens", 900, WindowKind.DAY), version=2)
            newer = msgspec.structs.replace(bench.lender.entitlements["acme"], ends_in_ms=1_000)
            reply = WatchReply(7, ("acme",), entitlements=(newer,), waited_ms=30_000)
            assert take_note(stage.books, reply, 10_000, 90_000) is False, "there is time for that"
            acme = stage.books.customers["acme"]
            assert (acme.entitlement.version, acme.ends_at_ms) == (2, 41_000)
            assert stage.books.pending.entitlements["acme"].version == 2, "and on its way to disk"
            late = msgspec.structs.replace(newer, version=1)
            take_note(stage.books, WatchReply(8, ("acme",), entitlements=(late,)), 90_000, 90_000)
            assert acme.entitlement.version == 2
            await stage.syncer.exchange(stopping=False)
            await stage.syncer.exchange(stopping=False)
            stage.books.look_again.add("acme")
            await stage.syncer.exchange(stopping=False)

    trio.run(story)
    stage.journal.close()
    versions = [[named.version for named in customers] for customers in heard]
    assert versions == [[0], [1], [], [2]], "leases are heard of as under the version that the last sync told"


def test_an_entitlement_of_a_customer_whom_nobody_here_serves_is_not_kept(bench) -> None:
    stranger = Entitlement("bolt", 3, CustomerStatus.ACTIVE)
    reply = WatchReply(7, ("bolt",), entitlements=(stranger,))
    take_note(bench.books, reply, 0, 0)
    assert "bolt" not in bench.books.customers


def test_a_first_call_is_not_decided_by_a_watch_that_was_answered_before_it_came(bench, tmp_path) -> None:
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY), version=2)

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=encode_msgpack(bench.lender.answer(_request(await request.aread()))))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink:
            assert stage.ask("r1") is None, "it waits"
            before = Entitlement("acme", 1, CustomerStatus.NO_SUBSCRIPTION)
            take_note(stage.books, WatchReply(7, ("acme",), entitlements=(before,)), 0, 0)
            assert stage.ask("r1") is None, "it waits on"
            await until_reserved(stage, "r1")

    trio.run(story)
    stage.journal.close()
    assert not stage.books.look_again


def test_what_was_to_be_said_is_said_again_when_nobody_heard_it(bench, tmp_path) -> None:
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    heard: list[SyncRequest] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        heard.append(_request(await request.aread()))
        if len(heard) == 1:
            return httpx.Response(503)
        return httpx.Response(200, content=encode_msgpack(bench.lender.answer(heard[-1])))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink:
            stage.ask("r1")
            with pytest.raises(UplinkDownError):
                await stage.syncer.exchange(stopping=False)
            await stage.syncer.exchange(stopping=False)

    trio.run(story)
    stage.journal.close()
    assert [customer.first_calls for customer in heard[0].customers] == [c.first_calls for c in heard[1].customers]
    assert heard[1].snapshot, "the first exchange that is heard lists everything"
    assert stage.books.leases


def test_ask_that_the_reply_passes_over_rests_and_then_is_made_again(bench, tmp_path) -> None:
    """A control plane that says nothing to an ask must not be stormed with it."""
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    bench.lender.slice = 10
    silent = False

    async def answer(request: httpx.Request) -> httpx.Response:
        reply = bench.lender.answer(_request(await request.aread()))
        return httpx.Response(200, content=encode_msgpack(SyncReply() if silent else reply))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        nonlocal silent
        async with stage.uplink:
            for name in ("r1", "r2"):
                while stage.ask(name) is None:
                    await stage.syncer.exchange(stopping=False)
                    await stage.writer.write_once()
            silent = True
            assert stage.ask("r3") is None
            assert stage.books.asking
            await stage.syncer.exchange(stopping=False)
            assert not stage.books.asking, "it rests"
            assert stage.ask("r3") is None
            assert not stage.books.asking
            stage.clock.now += PASSED_OVER_MS
            silent = False
            assert stage.ask("r3") is None
            await stage.syncer.exchange(stopping=False)
            await stage.writer.write_once()
            assert stage.ask("r3").has_access

    trio.run(story)
    stage.journal.close()


def test_revocation_that_the_watch_hears_of_is_settled_by_an_exchange_at_once(bench, tmp_path) -> None:
    heard: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        heard.append(request.url.path)
        if request.url.path == WATCH_PATH or len(heard) > 2:
            return httpx.Response(401, json={"code": "unauthenticated"})
        return httpx.Response(200, content=encode_msgpack(SyncReply()))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink, trio.open_nursery() as nursery:
            nursery.start_soon(stage.syncer.run)
            nursery.start_soon(watch, stage.books, stage.uplink, stage.syncer, stage.clock)
            with trio.fail_after(600):
                while not stage.books.refusing:  # noqa: ASYNC110 - a plain field of the books; no event says so
                    await trio.sleep(0.5)
            nursery.cancel_scope.cancel()

    # The journal writes in a thread, which a slow machine may hold up: virtual time then goes on no faster than 0.5 s
    # in 10 ms, and the deadline above cannot pass before that thread had its turn.
    trio.run(story, clock=MockClock(autojump_threshold=0.01))
    stage.journal.close()
    assert heard == [SYNC_PATH, WATCH_PATH, SYNC_PATH]


def test_an_end_that_a_call_meets_is_asked_about_soon(bench, tmp_path) -> None:
    """A newer subscription may have followed, and nothing else here has anything to say."""
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    heard: list[set[str]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        said = _request(await request.aread())
        heard.append({named.customer for named in said.customers})
        return httpx.Response(200, content=encode_msgpack(bench.lender.answer(said)))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink, trio.open_nursery() as nursery:
            await until_reserved(stage, "r1")
            nursery.start_soon(stage.syncer.run)
            await trio.sleep(5)
            heard.clear()
            stage.books.customers["acme"].ends_at_ms = stage.clock.now
            stage.ask("r2")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    trio.run(story, clock=MockClock(autojump_threshold=0.01))
    stage.journal.close()
    assert heard == [{"acme"}]


def test_quarantined_agent_stops_exchanging_with_its_reason(bench, tmp_path) -> None:
    stage = Stage(bench, tmp_path, says(409, b'{"code": "journal_quarantined", "detail": "copied"}'))

    async def story() -> None:
        async with stage.uplink:
            await stage.syncer.run()

    with pytest.raises(QuarantinedError, match="copied"):
        trio.run(story)
    stage.journal.close()


def test_events_of_a_journal_that_is_shut_out_are_handed_over_once_before_it_stops(
    bench, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("agent.background.sync.BATCH_BYTES_A_SYNC", 1)
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    shut_out = False
    sent: list[int] = []
    reported: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        said = _request(await request.aread())
        if shut_out:
            sent.extend(batch.first for batch in said.batches)
            reported.append(sum(report.settled for report in said.leases))
            return httpx.Response(409, json={"code": "journal_quarantined", "detail": "copied"})
        return httpx.Response(200, content=encode_msgpack(bench.lender.answer(said)))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        nonlocal shut_out
        async with stage.uplink:
            await until_reserved(stage, "r0")
            for name in ("r1", "r2", "r3"):
                done = Settle(reservation=name, amounts={"output_tokens": 1}, call=Call("acme", "chat"))
                settle(stage.books, done, stage.clock.now, 1)
                await stage.writer.write_once()
            shut_out = True
            stage.books.news = True
            await stage.syncer.run()

    with pytest.raises(QuarantinedError, match="copied"):
        trio.run(story)
    stage.journal.close()
    assert sent == [1, 2, 3]
    assert reported == [3, 3, 0], "how far the leases are used is said by itself, too"
    assert stage.books.refusing


def test_as_long_a_pause_is_made_as_the_control_plane_asks_for_and_not_by_all_alike(bench, tmp_path) -> None:
    pauses: set[float] = set()
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        at: list[float] = []

        def answer(_: httpx.Request, at: list[float] = at) -> httpx.Response:
            at.append(trio.current_time())
            if len(at) == 1:
                return httpx.Response(503, headers={"retry-after": "7"}, json={"code": "busy"})
            return httpx.Response(200, content=encode_msgpack(SyncReply()))

        stage = Stage(bench, folder, answer)

        async def story(stage: Stage = stage) -> None:
            async with stage.uplink, trio.open_nursery() as nursery:
                nursery.start_soon(stage.syncer.run)
                await stage.syncer.first_success.wait()
                nursery.cancel_scope.cancel()

        trio.run(story, clock=MockClock(autojump_threshold=0))
        stage.journal.close()
        pauses.add(at[1] - at[0])
    assert all(7 <= pause <= 14.5 for pause in pauses)
    assert len(pauses) > 1


@pytest.mark.parametrize(
    ("said", "pause"), [("3", 3), ("0", 0), ("-1", 0), ("x", 0), ("9" * 9, 0), ("61", 60), ("1.5", 0), ("\u0663", 0)]
)
def test_nonsense_in_retry_after_is_passed_over(said: str, pause: float) -> None:
    with pytest.raises(UplinkDownError) as busy:
        ask(lambda _: httpx.Response(503, headers={"retry-after": said.encode()}))
    assert busy.value.retry_after_s == pause


def test_new_generation_is_told_everything_at_once_and_remembered(bench, tmp_path) -> None:
    heard: list[SyncRequest] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        heard.append(_request(await request.aread()))
        return httpx.Response(200, content=encode_msgpack(SyncReply(generation="2-1")))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink, trio.open_nursery() as nursery:
            nursery.start_soon(stage.syncer.run)
            with trio.fail_after(20):
                while len(heard) < 2:  # noqa: ASYNC110 - counted by the scripted control plane; no event says so
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        await stage.writer.write_once()

    trio.run(story)
    assert [(said.snapshot, said.generation) for said in heard] == [(True, ""), (True, "2-1")]
    assert stage.journal.meta(GENERATION) == "2-1"
    stage.journal.close()


def test_agent_that_stops_is_heard_even_by_a_control_plane_that_has_forgotten_it(bench, tmp_path) -> None:
    heard: list[bool] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        heard.append(_request(await request.aread()).snapshot)
        if len(heard) == 2:
            return httpx.Response(400, json={"code": "snapshot_required"})
        return httpx.Response(200, content=encode_msgpack(SyncReply()))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> bool:
        async with stage.uplink:
            await stage.syncer.exchange(stopping=False)
            return await stage.syncer.finish()

    assert trio.run(story)
    stage.journal.close()
    assert heard == [True, False, True]


def test_events_that_are_wanted_again_are_sent_at_once_and_what_is_gone_is_said(bench, tmp_path, caplog) -> None:
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    heard: list[SyncRequest] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        heard.append(said := _request(await request.aread()))
        top = max((batch.first for batch in said.batches), default=0)
        lost = max((mark.seq for mark in said.lost), default=0)
        mark = 0 if len(heard) == 2 else max(top, lost)
        return httpx.Response(200, content=encode_msgpack(SyncReply(high_water=(HighWater(1, mark),))))

    stage = Stage(bench, tmp_path, answer)

    async def story() -> None:
        async with stage.uplink, trio.open_nursery() as nursery:
            for name in ("r1", "r2", "r3"):
                done = Settle(reservation=name, amounts={"output_tokens": 1}, call=Call("acme", "chat"))
                settle(stage.books, done, stage.clock.now, 1)
                await stage.writer.write_once()
            await stage.syncer.exchange(stopping=False)
            stage.outbox.forget([(1, 1)])
            stage.books.news = True
            nursery.start_soon(stage.syncer.run)
            with trio.fail_after(20):
                while len(heard) < 3:  # noqa: ASYNC110 - counted by the scripted control plane; no event says so
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(story)
    stage.journal.close()
    assert [[batch.first for batch in said.batches] for said in heard] == [[1, 2, 3], [], [2, 3]]
    assert [said.confirmed for said in heard] == [(), (HighWater(1, 3),), (HighWater(1, 0),)]
    assert [said.lost for said in heard] == [(), (), (HighWater(1, 1),)]
    assert "are gone here: boot 1 up to event 1" in caplog.text
