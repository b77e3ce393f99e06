"""A provider of models for benchmarks: answers at once, or in pieces; one process, no more work than bytes.

Usage: model_provider.py PORT. The model that a request names says what
it is answered: ``whole`` in one piece, ``words`` as a stream of short pieces, ``flood`` as five megabytes at once.
"""

from __future__ import annotations

import asyncio
import json
import sys

USED = {"prompt_tokens": 12, "completion_tokens": 50, "total_tokens": 62}
ANSWER = json.dumps(
    {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": USED,
    }
).encode()  # fmt: skip
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES, EVERY_S = 50, 0.1
FLOOD_PIECES, FLOOD_BYTES = 80, 64 * 1024


def event(text: str | None) -> bytes:
    """A piece of the stream; ``None``: its last one, which says what was used."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps(said | ({"usage": USED} if text is None else {})).encode() + b"\n\n"


WORDS = [event(f"word {number} ") for number in range(PIECES)]
FLOOD = event("x" * FLOOD_BYTES)
END = b"data: [DONE]\n\n"


class _Answers(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._kept = b""
        self._streaming: asyncio.Future[None] | None = None
        self._takes_more = asyncio.Event()
        self._takes_more.set()

    def pause_writing(self) -> None:
        self._takes_more.clear()

    def resume_writing(self) -> None:
        self._takes_more.set()

    def data_received(self, data: bytes) -> None:
        self._kept += data
        while (end := self._kept.find(b"\r\n\r\n")) >= 0:
            head = self._kept[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._kept) < end + 4 + length:
                return
            body, self._kept = self._kept[end + 4 : end + 4 + length], self._kept[end + 4 + length :]
            if b'"words"' in body:
                self._streaming = asyncio.ensure_future(self._stream(WORDS, EVERY_S))
            elif b'"flood"' in body:
                self._streaming = asyncio.ensure_future(self._stream([FLOOD] * FLOOD_PIECES, 0))
            else:
                self._transport.write(WHOLE)

    async def _stream(self, pieces: list[bytes], every_s: float) -> None:
        self._transport.write(STREAM)
        for piece in [*pieces, event(None), END]:
            await self._takes_more.wait()
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(every_s)
        self._transport.write(b"0\r\n\r\n")


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", int(sys.argv[1]), backlog=1_024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
