"""A provider for benchmarks: answers at once, or in so many pieces; one process, no more work than bytes."""

from __future__ import annotations

import asyncio
import json
import sys

ANSWER = json.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }
).encode()  # fmt: skip
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "lorem "}, "finish_reason": None}]}  # fmt: skip
LAST = WORD | {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 50, "total_tokens": 62}}
PIECES, EVERY_S = 50, 0.04


class _Answers(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.kept = b""

    def data_received(self, data: bytes) -> None:
        self.kept += data
        while (end := self.kept.find(b"\r\n\r\n")) >= 0:
            head = self.kept[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.kept) < end + 4 + length:
                return
            body, self.kept = self.kept[end + 4 : end + 4 + length], self.kept[end + 4 + length :]
            if b'"stream":' in body.replace(b" ", b"") and b"true" in body:
                self.streaming = asyncio.ensure_future(self._stream())
            else:
                self.transport.write(WHOLE)  # type: ignore[attr-defined]

    async def _stream(self) -> None:
        write = self.transport.write  # type: ignore[attr-defined]
        write(STREAM)
        for said in [*[WORD] * PIECES, LAST]:
            event = b"data: " + json.dumps(said).encode() + b"\n\n"
            write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(EVERY_S)
        write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
