"""Both doors in front of real books, without a process: bytes in, bytes out, time that moves when told."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.api.authz import Authz
from agent.api.dispatch import Dispatch
from agent.api.frames import FramesDoor
from agent.api.http import HttpDoor
from agent.operations.park import try_due
from agent.operations.report_status import report_status
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import Limit, LimitEnd
from protocol.framing import FrameReader, frame
from protocol.local_messages import Reply
from protocol.windows import WindowKind

decode_reply = MsgpackDecoder(Reply)


@dataclass
class Response:
    """One HTTP response, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def responses_in(data: bytes, *, heads: bool = False) -> list[Response]:
    """Every response in what a connection said, by its own content-lengths; ``heads``: answers to HEAD, no bodies."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .+", first)[1])
        headers = dict(line.split(": ", 1) for line in lines)
        size = 0 if heads or status < 200 else int(headers["content-length"])
        assert len(data) >= size, "a body shorter than it says"
        found.append(Response(status, headers, data[:size]))
        data = data[size:]
    return found


@dataclass
class Doorway:
    """Doors on one bench; what comes late is kept with what came at once."""

    bench: Any
    ready: bool = True
    dispatch: Dispatch = field(init=False)
    authz: Authz = field(init=False)

    def __post_init__(self) -> None:
        self.dispatch = Dispatch(self.bench.books, self, self._status)
        self.authz = Authz(self.dispatch, self.bench.books.estimates, lambda: secrets.token_hex(8))

    def wall_ms(self) -> int:
        return self.bench.wall_ms

    def monotonic_ms(self) -> int:
        return self.bench.now_ms

    def _status(self):
        return report_status(
            self.bench.books, self.bench.now_ms, version="0", state="ready", uptime_ms=0, control_plane={},
            outbox_events=0, oldest_unsent_ms=0, connections=0,
        )  # fmt: skip

    def frames(self) -> Frames:
        return Frames(self)

    def http(self, *, guarded: bool = False) -> Http:
        return Http(self, guarded)

    def catch_up(self) -> None:
        """Exchanges and commits, as the background does."""
        for _ in range(3):
            self.bench.sync()
            self.bench.commit()

    def pass_time(self, milliseconds: int) -> None:
        self.bench.now_ms += milliseconds
        try_due(self.bench.books, self.bench.now_ms)


class Frames:
    """A connection to the frames door."""

    def __init__(self, way: Doorway) -> None:
        self._reader = FrameReader()
        self.said = bytearray()
        self.door = FramesDoor(way.dispatch, self.said.extend)

    def feed(self, data: bytes) -> list[Reply]:
        self.said += self.door.feed(data)
        return self.replies()

    def send(self, *messages: object) -> list[Reply]:
        return self.feed(b"".join(frame(encode_msgpack(message)) for message in messages))

    def replies(self) -> list[Reply]:
        """What has been said since this was asked last."""
        said = bytes(self.said)
        self.said.clear()
        return [decode_reply(body) for body in self._reader.feed(said)]


class Http:
    """A connection to the HTTP door."""

    def __init__(self, way: Doorway, guarded: bool) -> None:
        self.said = bytearray()
        self.door = HttpDoor(way.dispatch, way.authz, lambda: way.ready, self.said.extend, guarded=guarded)

    def feed(self, data: bytes, *, heads: bool = False) -> list[Response]:
        self.said += self.door.feed(data)
        return self.responses(heads=heads)

    def responses(self, *, heads: bool = False) -> list[Response]:
        said = bytes(self.said)
        self.said.clear()
        return responses_in(said, heads=heads)

    def post(self, path: str, body: Any, *, host: str = "localhost", kind: str = "application/json") -> list[Response]:
        return self.feed(post(path, body, host=host, kind=kind))

    def get(self, path: str, host: str = "localhost") -> list[Response]:
        return self.feed(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())


def post(path: str, body: Any, *, host: str = "localhost", kind: str = "application/json", more: str = "") -> bytes:
    """A whole POST request; ``body`` as it is when it is bytes."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: {len(payload)}\r\n{more}\r\n"
    )
    return head.encode() + payload


@pytest.fixture
def way(bench) -> Doorway:
    """Doors before a customer ``acme`` with a day's tokens and a minute's requests, who has been seen before."""
    bench.entitle(
        Limit("tokens-a-day", "output_tokens", 1_000, WindowKind.DAY),
        Limit("a-minute", "requests", 20, WindowKind.MINUTE, at_end=LimitEnd.THROTTLE),
    )
    doorway = Doorway(bench)
    doorway.frames().send(
        {"op": "check", "call": {"customer": "acme", "feature": "chat"}, "amounts": {"output_tokens": 1}}
    )
    doorway.catch_up()
    return doorway


@pytest.fixture
def open_way(bench) -> Doorway:
    """For properties, whose examples share it: an unlimited customer ``acme``."""
    bench.entitle(Limit("tokens-a-day", "output_tokens", None, WindowKind.DAY))
    doorway = Doorway(bench)
    doorway.frames().send({"op": "check", "call": {"customer": "acme", "feature": "chat"}})
    doorway.catch_up()
    return doorway
