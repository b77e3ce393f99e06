"""Model calls over HTTP/1.1 as a benchmark makes them: with little work, so that what is between is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """How a call gets to the provider: directly, or through something."""

    name: str
    port: int
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, model: str, *, stream: bool = False) -> bytes:
        """The bytes of one call."""
        said = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        body = json.dumps(said | ({"stream": True} if stream else {})).encode()
        lines = [f"POST {self.path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", "content-type: application/json"]
        lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection:
    """One caller, kept alive."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> Connection:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._way.port, limit=1 << 20)
        return self

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, request: bytes, pause_s: float = 0.0) -> tuple[int, bytes, float]:
        """One call to its end: status, body, seconds to the first byte. ``pause_s``: what the caller waits after the
        head before it reads on.

        Raises: ValueError: the answer is no whole HTTP.
        """
        begun = time.perf_counter()
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        first_s = time.perf_counter() - begun
        status = int(head.split(b" ", 2)[1])
        await asyncio.sleep(pause_s)
        if b"transfer-encoding: chunked" in head:
            return status, await self._chunks(), first_s
        at = head.find(b"content-length:")
        if at < 0:
            raise ValueError(f"an answer without a length: {head!r}")
        return status, await self._reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0])), first_s

    async def _chunks(self) -> bytes:
        found = bytearray()
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            part = await self._reader.readexactly(size + 2)
            if size == 0:
                return bytes(found)
            found += part[:-2]


async def times_s(way: Way, calls: int, connections: int) -> list[float]:
    """How long each of so many calls took, made by so many callers at once; in no order.

    Raises: RuntimeError: one was not answered as it should be.
    """
    request, found = way.request("whole"), list[float]()

    async def caller() -> None:
        connection = await Connection(way).open()
        for _ in range(calls // connections):
            begun = time.perf_counter()
            status, body, _ = await connection.ask(request)
            found.append(time.perf_counter() - begun)
            if status != 200:
                raise RuntimeError(f"{way.name} answers {status}: {body[:300]!r}")
        await connection.close()

    async with asyncio.TaskGroup() as callers:
        for _ in range(connections):
            callers.create_task(caller())
    return found
