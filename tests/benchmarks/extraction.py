"""Measures how long usage takes to read, beside json.loads of the same bytes: recorded answers, whole and streamed.

Usage: extraction.py [--rounds 15]. Both are measured in turns, as CPU time; the medians of the rounds are printed.
Nothing here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from genai_prices import extract_usage

from agent.core.tokens.read import UsageReader, usage_of

RECORDED = Path(__file__).resolve().parents[1] / "data" / "recorded"
CHUNK_BYTES = 4_096
"""As a proxy reads them."""

STREAM_BYTES = 1_000_000


STREAMED = (
    "openai-chat-stream-1", "mistral-chat-stream-1", "openai-responses-stream-2", "anthropic-messages-stream-4",
)  # fmt: skip


def theirs(body: bytes) -> None:
    """As another library does it."""
    extract_usage(json.loads(body), provider_id="openai", api_flavor="chat")


def read_stream(stream: bytes) -> None:
    """As a proxy does it, in chunks."""
    reader = UsageReader()
    for at in range(0, len(stream), CHUNK_BYTES):
        reader.feed(stream[at : at + CHUNK_BYTES])
    reader.end()


def load_events(stream: bytes) -> None:
    """The least that anybody does who reads a stream."""
    for line in stream.split(b"\n"):
        if line.startswith(b"data: {"):
            json.loads(line[6:])


def took_us(work: Callable[[], object], times: int) -> float:
    """CPU time of one run."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times * 1e6


def beside(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, times: int) -> tuple[float, float]:
    """Medians of both, and of the rounds' ratios."""
    pairs = [(took_us(ours, times), took_us(theirs, times)) for _ in range(rounds)]
    return median(one for one, _ in pairs), median(one / other for one, other in pairs if other)


def lengthened(stream: bytes) -> bytes:
    """A stream of about a megabyte: its events over and over before the last ones, which hold the usage."""
    events = stream.replace(b"\r", b"").split(b"\n\n")
    middle = b"\n\n".join(events[1 : max(2, len(events) - 4)]) + b"\n\n"
    copies = -(-STREAM_BYTES // len(middle))
    return events[0] + b"\n\n" + middle * copies + b"\n\n".join(events[max(2, len(events) - 4) :])


def main() -> int:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    for path in sorted(RECORDED.glob("*.json")):
        body = path.read_bytes()
        us, ratio = beside(partial(usage_of, body), partial(json.loads, body), options.rounds, 40)
        sys.stdout.write(f"{path.name:36}{len(body):8} bytes {us:9.1f} us {ratio:7.2f} x json.loads\n")
        rows.append((us, ratio))
    us, ratio = (median(column) for column in zip(*rows, strict=True))
    sys.stdout.write(f"whole answers, median: {us:.1f} us, {ratio:.2f} x json.loads\n")
    body = (RECORDED / "openai-chat-1.json").read_bytes()
    us, ratio = beside(partial(usage_of, body), partial(theirs, body), options.rounds, 40)
    sys.stdout.write(f"openai-chat-1.json: {us:.1f} us, {ratio:.2f} x json.loads and genai-prices' extract_usage\n\n")
    for name in STREAMED:
        stream = lengthened((RECORDED / f"{name}.sse").read_bytes())
        rounds = max(3, options.rounds // 3)
        us, ratio = beside(partial(read_stream, stream), partial(load_events, stream), rounds, 1)
        sys.stdout.write(
            f"{name:36}{us / 1e3 / (len(stream) / 1e6):8.1f} ms a MB {us / stream.count(b'data: '):7.1f} us an event"
            f" {ratio:7.2f} x json.loads of its events\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
