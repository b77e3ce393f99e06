"""Usage of a whole answer, of the lines of a batch, or of a stream in chunks: the doors of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.core.tokens import bedrock
from agent.core.tokens.answer import Answer
from agent.core.tokens.event_stream import EventStreamFrames
from agent.core.tokens.framing import ArrayFrames, BodyFrames, EventFrames, Frames, without_start
from agent.core.tokens.usage import Usage

DOCUMENT_BYTES_MAX = 1024 * 1024
"""How much of one event of a stream is held; of a longer one, only its ends are read."""

EVENTS_IN_BODY = 8
"""How many times as long a body may be that is no stream: images and embeddings come whole."""


def usage_of(body: bytes, path: str = "", headers: Mapping[str, str] | None = None) -> Usage:
    """What one answer used that has come whole; a stream that was collected may be given as well.

    Never raises, whatever the bytes are.

    Args:
        body: the answer, uncompressed; one event of a realtime session or one line of a batch is an answer too.
        path: of the request, if known. It names the model where the answer does not (Gemini, Bedrock, Azure).
        headers: of the answer, names in lower case. Bedrock's say what some of its models leave out.
    """
    if body[:1] == b"{":
        answer = Answer(path)
        answer.take(body, whole=True)
        _take_headers(answer, headers)
        return answer.as_usage()
    reader = UsageReader(path, headers, max(DOCUMENT_BYTES_MAX, len(body)))
    reader.feed(body)
    return reader.end()


def usages_of_lines(lines: bytes) -> Iterator[Usage]:
    """What each answer of a batch used: one line of JSON each."""
    for line in lines.splitlines():
        if line.strip():
            yield usage_of(line.strip())


class UsageReader:
    """What one answer used that comes in chunks, cut anywhere: a stream of any framing, or a body.

    Keeps at most about ``document_bytes_max`` bytes of a stream, and eight times as much of a body. Never raises,
    whatever the bytes are.
    """

    __slots__ = ("_answer", "_bytes_max", "_ended", "_frames", "_start")

    def __init__(
        self,
        path: str = "",
        headers: Mapping[str, str] | None = None,
        document_bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> None:
        self._answer = Answer(path)
        _take_headers(self._answer, headers)
        self._bytes_max = document_bytes_max
        self._frames: Frames | None = None
        self._start = b""
        self._ended = False

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of output that the stream has brought so far."""
        return self._answer.output_bytes

    @property
    def complete(self) -> bool:
        """Whether the provider has said that nothing follows."""
        return self._answer.ended

    @property
    def running(self) -> bool:
        """Whether the provider has said that it goes on by itself: what it used is told when it is asked later."""
        return self._answer.running

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer; none after :meth:`end`."""
        if self._ended:
            return
        if self._frames is None:
            start = without_start(self._start + chunk)
            if start is None:
                self._start = (self._start + chunk)[-3:]
                return
            chunk, self._start = start, b""
            self._frames = self._framing(chunk[0])
        for document in self._frames.feed(chunk):
            self._answer.take(document)

    def so_far(self) -> Usage:
        """What it comes to so far."""
        return self._answer.as_usage()

    def end(self) -> Usage:
        """No more bytes come, whether or not the answer was complete; what it comes to."""
        if not self._ended and self._frames is not None:
            for document in self._frames.close():
                self._answer.take(document, whole=self._frames.whole, cut=True)
            if self._frames.broken:
                self._answer.trouble("stream", "is broken: what followed was not read")
            if isinstance(self._frames, EventFrames):
                if self._frames.failed:
                    self._answer.fail()
                if not self._frames.any:
                    self._answer.trouble("stream", "is not understood: neither JSON nor events")
        self._ended = True
        return self._answer.as_usage()

    def _framing(self, first: int) -> Frames:
        if first == 0:  # the first byte of a length; no message is as long as sixteen megabytes
            return EventStreamFrames(self._bytes_max)
        if first == ord("["):
            return ArrayFrames(self._bytes_max)
        if first == ord("{"):
            return BodyFrames(EVENTS_IN_BODY * self._bytes_max)
        return EventFrames(self._bytes_max)


def _take_headers(answer: Answer, headers: Mapping[str, str] | None) -> None:
    if headers:
        said = {field: headers.get(name, "") for name, field in bedrock.HEADERS.items()}
        counts = {field: int(value[:20]) for field, value in said.items() if value.isascii() and value.isdigit()}
        answer.take_counts(counts)
