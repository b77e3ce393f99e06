"""What a provider says only when it is asked later: what a batch used, and an answer that was made in the background or
whose stream broke off. However often it is fetched, it is counted once.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from agent.core.metered_call import Extending
from agent.core.tokens.read import UsageReader, usage_of
from agent.core.tokens.usage import Usage
from protocol.events import UsageSource
from protocol.ids import is_key
from protocol.local_messages import Call, Record, Settle
from protocol.units import REQUESTS

ANSWERS_MAX = 4_096
"""How many answers are remembered under their provider's name for them; of one that is forgotten, what it was held or
estimated at counts."""

LINE_BYTES_MAX = 8 * 1024 * 1024
"""The longest line of a batch's results that is read."""

MODELS_MAX = 64

_LATER = re.compile(r"/(?P<kind>batches|responses|chat/completions)/(?P<id>[^/:]+)(?P<results>/results)?\Z")


class Place(NamedTuple):
    """What is fetched. ``results``: a line for each answer of a batch."""

    batch: bool
    id: str
    results: bool


def place_of(method: str, path: str) -> Place | None:
    """What a request fetches of which the usage may be told now; ``None``: nothing such."""
    found = _LATER.search(path.partition("?")[0]) if method == "GET" else None
    return None if found is None else Place(found["kind"] == "batches", found["id"], found["results"] is not None)


class Answers:
    """Calls that were made here, by their provider's name for the answer."""

    def __init__(self, answers_max: int = ANSWERS_MAX) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[str, Call]] = OrderedDict()
        self._answers_max = answers_max

    def remember(self, provider: str, response: str | None, reservation: str, call: Call) -> None:
        """This answer belongs to this reservation."""
        if response is None:
            return
        self._known[provider, response] = (reservation, call)
        if len(self._known) > self._answers_max:
            self._known.popitem(last=False)

    def find(self, provider: str, response: str) -> tuple[str, Call] | None:
        """Which reservation it belongs to, and whose call that was."""
        return self._known.get((provider, response))


class FetchedAnswer:
    """An answer that was begun before, as it is fetched."""

    cut = None

    def __init__(self, provider: str, path: str, reservation: str, call: Call) -> None:
        self._provider = provider
        self._path = path
        self._reservation = reservation
        self._call = call
        self._reader: UsageReader | None = None

    def answered(self, headers: Mapping[str, str]) -> None:
        """It begins to arrive."""
        self._reader = UsageReader(self._path, headers)

    def feed(self, chunk: bytes, extend: Extending) -> None:  # noqa: ARG002 - nothing is held for it
        """More of it."""
        if self._reader is not None:
            self._reader.feed(chunk)

    def endings(self, status: int | None, *, whole: bool, sent: bool) -> Iterator[Settle]:  # noqa: ARG002
        """The last word on its call, if it is told: the same words again change nothing, others correct."""
        if self._reader is None or status is None or status >= 300:
            return
        usage = self._reader.end()
        if usage.usage_source is UsageSource.PROVIDER:
            yield Settle(
                reservation=self._reservation,
                amounts=usage.meters,
                tokens=usage.tokens,
                outcome=usage.outcome,
                model=usage.model or self._call.model,
                provider=self._provider,
                call=self._call,
            )


class FetchedBatch:
    """What a batch used, as its provider sums it up or by the lines of its results: an event for each model."""

    cut = None

    def __init__(self, provider: str, path: str, place: Place, call: Call) -> None:
        self._provider = provider
        self._path = path
        self._place = place
        self._call = call
        self._sums: dict[str | None, tuple[dict[str, int], dict[str, int]]] = {}
        self._kept = bytearray()
        self._too_long = False

    def answered(self, headers: Mapping[str, str]) -> None:
        """It begins to arrive."""

    def feed(self, chunk: bytes, extend: Extending) -> None:  # noqa: ARG002 - nothing is held for it
        """More of it; of results, each line is added up as it comes."""
        self._kept += chunk
        if not self._place.results:
            self._too_long = self._too_long or len(self._kept) > LINE_BYTES_MAX
            if self._too_long:
                self._kept.clear()
            return
        *lines, rest = self._kept.split(b"\n") if b"\n" in chunk else [self._kept]
        for line in lines:
            self._add_line(line)
        self._kept = bytearray(rest)
        if len(self._kept) > LINE_BYTES_MAX:
            self._kept.clear()
            self._too_long = True

    def endings(self, status: int | None, *, whole: bool, sent: bool) -> Iterator[Record]:  # noqa: ARG002
        """What it came to. Results that broke off say nothing: they will be fetched again."""
        if status is None or status >= 300 or not whole:
            return
        if self._place.results:
            self._add_line(self._kept)
        elif not self._too_long:
            for usage in _usages(bytes(self._kept), self._path):
                self._add(usage)
        for model, (tokens, meters) in self._sums.items():
            if tokens:
                yield Record(
                    event=_named(self._place.id, model),
                    call=msgspec.structs.replace(self._call, model=model),
                    amounts=meters,
                    tokens=tokens,
                    provider=self._provider,
                )

    def _add_line(self, line: bytearray | bytes) -> None:
        if self._too_long:  # the rest of a line whose beginning was too much to keep
            self._too_long = False
        elif line.strip():
            self._add(usage_of(bytes(line)))

    def _add(self, usage: Usage) -> None:
        if usage.usage_source is not UsageSource.PROVIDER:
            return
        said = [(usage.model, usage.tokens, {REQUESTS: 1, **usage.meters})]
        said += [(one.model, one.tokens, {REQUESTS: 0}) for one in usage.others]
        for model, tokens, meters in said:
            if len(self._sums) < MODELS_MAX or model in self._sums:
                sums = self._sums.setdefault(model, ({}, {}))
                for mine, theirs in zip(sums, (tokens, meters), strict=True):
                    for name, amount in theirs.items():
                        mine[name] = mine.get(name, 0) + amount


def _usages(body: bytes, path: str) -> Iterator[Usage]:
    """A batch's own sum; where there is none, what its answers say that stand in it (Gemini's ``inlinedResponses``)."""
    yield usage_of(body, path)
    try:
        answers = msgspec.json.decode(body, type=_Operation).response.inlined.answers
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for one in answers:
        yield usage_of(bytes(one.response))


class _Inlined(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"{}")


class _InlinedResponses(msgspec.Struct, rename={"answers": "inlinedResponses"}):
    answers: list[_Inlined] = []


class _Result(msgspec.Struct, rename={"inlined": "inlinedResponses"}):
    inlined: _InlinedResponses = msgspec.field(default_factory=_InlinedResponses)


class _Operation(msgspec.Struct):
    response: _Result = msgspec.field(default_factory=_Result)


def _named(batch: str, model: str | None) -> str:
    """The event's identity: whoever fetches the batch, and wherever, says it of the same event."""
    name = f"batch.{batch}.{_digest(model or '')[:8]}"
    return name if is_key(name) else f"batch.{_digest(batch)}.{_digest(model or '')[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
