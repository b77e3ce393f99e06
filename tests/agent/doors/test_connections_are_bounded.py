"""Real sockets before the one epoll: who stalls is closed, one too many hears so, who is slow disturbs nobody."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgpack
import pytest
import trio

from agent.api import frames, http
from agent.api import listeners as listeners_module
from agent.api.connections import LINGER_MS, STALLED_MS
from agent.api.frames import FramesDoor
from agent.api.http import HttpDoor
from agent.api.listeners import OUT_BYTES_MAX, Listeners
from agent.api.sockets import listen_loopback, listen_unix
from protocol.framing import FrameReader, frame

STATUS = frame(msgpack.packb({"op": "status", "id": 1}))
GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Stand:
    """Listeners on both sockets of an agent, turned by hand."""

    def __init__(self, way, folder: Path, connections_max: int = 100) -> None:
        self.way = way
        self.folder = folder
        self.listeners = Listeners(lambda: way.bench.now_ms, connections_max)
        way.bench.books.send_answers = self.listeners.flush
        self.listeners.listen(listen_unix(folder / "f", 0o660), partial(FramesDoor, way.dispatch), frames.BUSY)
        make_http = partial(HttpDoor, way.dispatch, way.authz, lambda: True, guarded=False)
        self.listeners.listen(listen_unix(folder / "h", 0o660), make_http, http.BUSY)
        self.clients: list[socket.socket] = []

    def connect(self, name: str = "f") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.folder / name))
        client.setblocking(False)
        self.clients.append(client)
        self.turn()
        return client

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.listeners._turn()

    def exchange(self, client: socket.socket, data: bytes) -> bytes:
        client.send(data)
        self.turn()
        return received(client)

    def pass_time(self, milliseconds: int) -> None:
        self.way.bench.now_ms += milliseconds
        self.listeners.sweep()
        self.turn()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.turn()
        self.listeners.stop_accepting()
        self.listeners._epoll.close()


def received(client: socket.socket) -> bytes:
    """Everything that has arrived; raises BlockingIOError when nothing has and the line is open."""
    data = bytearray(client.recv(1 << 20))
    with contextlib.suppress(BlockingIOError):
        while more := client.recv(1 << 20):
            data += more
    return bytes(data)


def is_closed(client: socket.socket) -> bool:
    """Whether the agent has ended this connection, what it still had said aside."""
    try:
        while client.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.fixture
def stand(way, tmp_path) -> Iterator[Stand]:
    made = Stand(way, tmp_path)
    yield made
    made.close()


def test_frame_begun_and_not_ended_is_given_ten_seconds(stand) -> None:
    dripping, idle = stand.connect(), stand.connect()
    dripping.send(STATUS[:5])
    stand.turn()
    stand.pass_time(STALLED_MS)
    assert not is_closed(dripping)
    stand.pass_time(1)
    assert is_closed(dripping)
    assert not is_closed(idle), "saying nothing at all is no offence"
    assert stand.exchange(idle, STATUS)


def test_dripping_a_byte_now_and_then_does_not_buy_more_time(stand) -> None:
    client = stand.connect()
    for byte in STATUS[:-1]:
        client.send(bytes([byte]))
        stand.turn()
        stand.pass_time(STALLED_MS // len(STATUS) + 1)
    stand.pass_time(STALLED_MS // 2)
    assert is_closed(client)


@pytest.mark.parametrize(("name", "message"), [("f", STATUS), ("h", GET)])
def test_busy_pipeline_whose_reads_end_inside_a_message_is_not_taken_for_a_stalled_one(stand, name, message) -> None:
    client = stand.connect(name)
    client.send(message[:3])
    stand.turn()
    for _ in range(5):
        assert stand.exchange(client, message[3:] + message[:3])
        stand.pass_time(STALLED_MS - 1)
    assert not is_closed(client)
    stand.pass_time(STALLED_MS)
    assert is_closed(client)


def test_half_a_frame_and_a_close_leaves_nothing(stand) -> None:
    client = stand.connect()
    client.send(STATUS[:-1])
    stand.turn()
    assert len(stand.listeners) == 1
    client.close()
    stand.turn()
    assert len(stand.listeners) == 0


def test_client_that_never_reads_is_read_no_more_and_closed_and_others_go_on(stand) -> None:
    deaf, other = stand.connect(), stand.connect()
    taken = 0
    with contextlib.suppress(BlockingIOError):
        for _ in range(2_000):
            taken += deaf.send(STATUS * 100)
            stand.turn(1)
    (connection,) = [c for c in stand.listeners._connections.values() if c.out]
    assert len(connection.out) < 2 * OUT_BYTES_MAX + 64 * 1024 * 40
    assert stand.exchange(other, STATUS)
    stand.pass_time(STALLED_MS)
    assert not is_closed_unread(stand, connection)
    stand.pass_time(STALLED_MS + 1)
    assert is_closed_unread(stand, connection)
    assert stand.exchange(other, STATUS)


def is_closed_unread(stand: Stand, connection) -> bool:
    """Without reading, which would be what it waits for."""
    return connection.closed and connection not in stand.listeners._connections.values()


@pytest.mark.parametrize("name", ["f", "h"])
def test_memory_for_all_connections_together_is_bounded(stand, monkeypatch, name) -> None:
    """Each within its own bound, and yet too much in all: those that hold most go, the others stay."""
    monkeypatch.setattr(listeners_module, "BUFFERED_BYTES_MAX", 500_000)
    head = (200_000).to_bytes(4, "big") if name == "f" else b"POST /v1/check HTTP/1.1\r\ncontent-length: 200000\r\n\r\n"
    heavy = [stand.connect(name) for _ in range(5)]
    light = stand.connect()
    for number, client in enumerate(heavy):
        for piece in (head, b"x" * 90_000, b"x" * (60_000 + number)):
            client.send(piece)
            stand.turn(12)
    stand.listeners.sweep()
    assert [is_closed(client) for client in heavy] == [False, False, False, True, True]
    assert stand.exchange(light, STATUS)


def test_slow_reader_that_does_read_is_kept(stand) -> None:
    slow = stand.connect()
    unsent = STATUS * 40_000
    with contextlib.suppress(BlockingIOError):
        for _ in range(2_000):
            unsent = unsent[slow.send(unsent[:10_000]) :]
            stand.turn(1)
    reader, heard = FrameReader(), 0
    while heard < 40_000:
        heard += len(reader.feed(slow.recv(1 << 16)))
        with contextlib.suppress(BlockingIOError):
            unsent = unsent[slow.send(unsent[:10_000]) :] if unsent else b""
        stand.turn(2)
        stand.pass_time(STALLED_MS // 8)
    assert not is_closed(slow)


def test_long_idle_connection_is_not_closed_for_the_age_of_its_last_answer(stand) -> None:
    client = stand.connect()
    assert stand.exchange(client, STATUS)
    stand.pass_time(3_600_000)
    client.send(STATUS)
    stand.turn()
    stand.listeners.sweep()
    assert not is_closed(client)


@pytest.mark.parametrize(("name", "greeting"), [("f", frames.BUSY), ("h", http.BUSY)])
def test_one_connection_too_many_hears_that_the_agent_is_busy_and_is_closed(way, tmp_path, name, greeting) -> None:
    stand = Stand(way, tmp_path, connections_max=2)
    kept = [stand.connect(), stand.connect("h")]
    extra = stand.connect(name)
    assert received(extra) == greeting
    assert is_closed(extra)
    assert stand.exchange(kept[0], STATUS)
    kept[1].close()
    stand.turn()
    assert stand.exchange(stand.connect("h"), GET), "a place that was left is given to the next"
    stand.close()


def test_busy_is_understood_by_each_kind_of_client() -> None:
    (body,) = FrameReader().feed(frames.BUSY)
    said = msgpack.unpackb(body)
    assert (said["kind"], said["error"]["code"], said["retry"]) == ("error", "overloaded", True)
    assert http.BUSY.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in http.BUSY


def test_refused_peer_that_is_still_sending_comes_to_read_why(stand) -> None:
    client = stand.connect()
    client.send((2**31).to_bytes(4, "big") + b"x" * 50_000)
    stand.turn()
    for _ in range(10):
        with contextlib.suppress(BlockingIOError):
            client.send(b"x" * 50_000)
        stand.turn()
    assert b"frame_invalid" in received(client)
    assert len(stand.listeners) == 1
    client.close()
    stand.turn()
    assert len(stand.listeners) == 0


def test_refused_peer_that_goes_on_sending_for_ever_is_cut_off(stand) -> None:
    client = stand.connect("h")
    client.send(b"NOT HTTP\r\n\r\n")
    stand.turn()
    assert b" 400 " in received(client)
    stand.pass_time(LINGER_MS)
    assert len(stand.listeners) == 1
    client.send(b"x" * 1_000)
    stand.turn()
    stand.pass_time(1)
    assert len(stand.listeners) == 0


def test_caller_that_goes_away_while_its_call_waits_holds_nothing(stand) -> None:
    client, other = stand.connect(), stand.connect()
    call = {"customer": "late", "feature": "chat"}
    client.send(frame(msgpack.packb({"op": "reserve", "id": 1, "reservation": "r1", "call": call})))
    other.send(frame(msgpack.packb({"op": "reserve", "id": 2, "reservation": "r2", "call": call})))
    stand.turn()
    client.close()
    stand.turn()
    stand.way.bench.entitle(customer="late")
    stand.way.catch_up()
    stand.listeners.flush()
    assert [held.id for held in stand.way.bench.books.reservations] == ["r2"]
    assert b"allow" in received(other)


def test_answers_that_come_late_leave_in_one_write_each_to_whom_they_belong(stand) -> None:
    clients = [stand.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        for event in range(3):
            call = {"customer": "acme", "feature": "chat"}
            client.send(
                frame(msgpack.packb({"op": "record", "id": event + 1, "event": f"e{number}-{event}", "call": call}))
            )
    stand.turn()
    stand.way.bench.commit()
    stand.listeners.flush()
    for number, client in enumerate(clients):
        replies = [msgpack.unpackb(body) for body in FrameReader().feed(received(client))]
        assert [(reply["id"], reply["event"]) for reply in replies] == [(i + 1, f"e{number}-{i}") for i in range(3)]


def test_running_listeners_serve_both_doors_and_close_everything_when_they_end(way, tmp_path) -> None:
    stand = Stand(way, tmp_path)
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    stand.listeners.listen(
        listen_loopback(number), partial(HttpDoor, way.dispatch, way.authz, lambda: True, guarded=True), http.BUSY
    )

    async def ask(stream: trio.SocketStream, data: bytes) -> bytes:
        with trio.fail_after(5):
            await stream.send_all(data)
            return bytes(await stream.receive_some())

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stand.listeners.run)
            over_frames = await trio.open_unix_socket(tmp_path / "f")
            over_http = await trio.open_unix_socket(tmp_path / "h")
            over_tcp = await trio.open_tcp_stream("127.0.0.1", number)
            assert b"status" in await ask(over_frames, STATUS)
            assert b" 200 " in await ask(over_http, GET)
            assert b" 200 " in await ask(over_tcp, GET)
            assert b" 421 " in await ask(over_tcp, GET.replace(b"localhost", b"evil.example"))
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            assert await over_frames.receive_some() == b""
        for stream in (over_frames, over_http, over_tcp):
            await stream.aclose()

    trio.run(story)
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(tmp_path / "f"))
