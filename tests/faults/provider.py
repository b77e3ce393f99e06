"""A provider of models on loopback: it plays recorded answers, whole, cut, slow, refused, or none at all."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "data" / "recorded"


@dataclass
class Seen:
    """One request that reached the provider; ``ended``: how the caller left: it stayed, or went."""

    path: str
    headers: dict[str, str]
    body: bytes
    ended: str = ""


class Provider(socketserver.ThreadingTCPServer):
    """Plays what the header ``x-play`` asks for: a recorded answer, cut, slow, refused, or none at all.

    Attributes:
        plays: which recorded answer it is where none is named.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1_024  # of five, a crowd loses some

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Play)
        self.seen: list[Seen] = []
        self.plays = "openai-chat-1.json"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Play(socketserver.StreamRequestHandler):
    server: Provider

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return
        headers: dict[str, str] = {}
        while one := self.rfile.readline().strip():
            name, _, value = one.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        seen = Seen(line.split()[1].decode(), headers, body)
        self.server.seen.append(seen)
        play = json.loads(headers.get("x-play", "{}"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            seen.ended = self._play(play, seen) or "stayed"
            return
        seen.ended = "went"

    def _play(self, play: dict[str, Any], seen: Seen) -> str | None:
        if "hang" in play:  # never answers: waits for the caller to go
            self.connection.settimeout(play["hang"])
            return "went" if self.connection.recv(1) == b"" else None
        time.sleep(play.get("wait", 0))
        name = play.get("file", self.server.plays)
        answer = play["text"].encode() if "text" in play else (RECORDED / name).read_bytes()
        answer = answer.replace(b"0.5,", b"0.5," * play.get("stretch", 1))
        if name.startswith("openai-chat-stream") and b"include_usage" not in seen.body:
            answer = b"".join(e for e in events_of(answer) if b'"choices":[]' not in e)
        kind = "text/event-stream" if name.endswith(".sse") else "application/json"
        head = (
            f"HTTP/1.1 {play.get('status', 200)} X\r\ncontent-type: {kind}\r\nset-cookie: a=b\r\nx-request-id: r-1\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in play.get("headers", {}).items())
        if name.endswith(".sse"):
            self.wfile.write((head + "transfer-encoding: chunked\r\nconnection: close\r\n\r\n").encode())
            step = play.get("step", 4_096)
            for at in range(0, len(answer), step):
                if at >= play.get("cut", len(answer)):
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return None
                part = answer[at : at + step]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                time.sleep(play.get("pause", 0))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write((head + f"content-length: {len(answer)}\r\nconnection: close\r\n\r\n").encode() + answer)
        return None


def events_of(stream: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in stream.split(b"\n\n") if event]
