"""Model calls whose answers are fed to this agent, by their reservations; and requests that arrive in pieces. Bounded.

What is forgotten for want of room its caller tells again (see ``begin``), so a bound costs time, never a count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from agent.core.fetched import LINE_BYTES_MAX, FetchedAnswer, FetchedBatch
from agent.core.metered_call import FEED_BYTES_MAX, Extending, MeteredCall
from protocol.decisions import Decision
from protocol.local_messages import Call, ErrorReply, Record, Settle

CALLS_MAX = 20_000
CALLS_BYTES_MAX = 256 * 1024 * 1024
"""What may be kept of answers that have not come to their end."""

BODY_BYTES_MAX = 64 * 1024 * 1024
"""The largest request that is looked at: providers take up to 50 MB of images and documents."""

BODIES_BYTES_MAX = 2 * BODY_BYTES_MAX
"""What may be kept of requests that have not arrived as a whole."""


class Fetching:
    """Something that was begun before and is fetched now, so that its usage may be told; nothing is held for it.

    Attributes: those of :class:`agent.core.metered_call.MeteredCall`.
    """

    resumed = False
    cut: Decision | ErrorReply | None = None

    def __init__(self, name: str, call: Call, watched: FetchedAnswer | FetchedBatch) -> None:
        self.name = name
        self.call = call
        self.fed: int | None = None
        self._watched = watched
        self._from_the_start = True

    def take(self, offset: int, chunk: bytes, headers: Mapping[str, str], extend: Extending) -> bool:
        """As a call's."""
        if self.fed is None:
            self._from_the_start = offset == 0
            self._watched.answered(headers)
        fed = offset if self.fed is None else self.fed
        if offset > fed:
            return False
        self.fed = max(fed, offset + len(chunk))
        self._watched.feed(chunk[fed - offset :], extend)
        return True

    @property
    def kept_bytes(self) -> int:
        """As a call's."""
        return min(self.fed or 0, LINE_BYTES_MAX)

    def feed_within(self) -> int:
        """As a call's."""
        return FEED_BYTES_MAX

    def endings(self, status: int | None, *, whole: bool) -> Iterator[Settle | Record]:
        """What is to be said of it. Of what was not seen from its start, nothing: it will be fetched again."""
        if self._from_the_start:
            yield from self._watched.endings(status, whole=whole, sent=True)


class CallBook:
    """Calls on their way, least recently heard of forgotten first."""

    def __init__(self, calls_max: int = CALLS_MAX, bytes_max: int = CALLS_BYTES_MAX) -> None:
        self._calls: OrderedDict[str, MeteredCall | Fetching] = OrderedDict()
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, name: str) -> MeteredCall | Fetching | None:
        """The call under this reservation."""
        found = self._calls.get(name)
        if found is not None:
            self._calls.move_to_end(name)
        return found

    def put(self, call: MeteredCall | Fetching) -> None:
        """Enter it."""
        self.pop(call.name)
        self._calls[call.name] = call
        self._bytes += call.kept_bytes
        self._make_room()

    def fed(self, call: MeteredCall | Fetching, kept_before: int) -> None:
        """More of its answer is kept than before."""
        self._bytes += call.kept_bytes - kept_before
        self._make_room()

    def pop(self, name: str) -> None:
        """It has ended."""
        call = self._calls.pop(name, None)
        if call is not None:
            self._bytes -= call.kept_bytes

    def _make_room(self) -> None:
        while len(self._calls) > 1 and (len(self._calls) > self._calls_max or self._bytes > self._bytes_max):
            self.pop(next(iter(self._calls)))


class Arriving:
    """Bodies of requests, arriving piece by piece, least recently heard of forgotten first."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._bodies: OrderedDict[str, bytearray] = OrderedDict()
        self._bytes_max = bytes_max
        self._bytes = 0

    def add(self, name: str, offset: int, piece: bytes) -> int | None:
        """How much of it is there now. A piece may come again; ``None``: what was before it is not known here."""
        body = self._bodies.get(name)
        if body is None:
            if offset:
                return None
            body = self._bodies[name] = bytearray()
        if offset > len(body):
            return None
        self._bodies.move_to_end(name)
        self._bytes += offset + len(piece) - len(body)
        body[offset:] = piece
        while self._bytes > self._bytes_max and len(self._bodies) > 1:
            _, oldest = self._bodies.popitem(last=False)
            self._bytes -= len(oldest)
        return len(body)

    def take(self, name: str) -> bytes:
        """All that has arrived of it; nothing is kept."""
        body = self._bodies.pop(name, bytearray())
        self._bytes -= len(body)
        return bytes(body)
