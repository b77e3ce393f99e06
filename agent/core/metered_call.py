"""One model call on its way: what is held for it, what has been seen of its answer, and what it comes to in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from agent.core.estimate import SLICE_TOKENS, Estimates
from agent.core.paths import answers_in_tokens
from agent.core.tokens.read import DOCUMENT_BYTES_MAX, EVENTS_IN_BODY, UsageReader
from agent.core.tokens.usage import Pass, Usage
from agent.core.told import Told
from protocol.admission import Estimate
from protocol.decisions import Decision, Verdict
from protocol.events import Outcome, UsageSource
from protocol.local_messages import Call, ErrorReply, Extend, Record, Release, Reserve, Settle
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS

DEADLINE_MS = 2_000

_CACHES_SAY = ("cf-aig-cache-status", "x-portkey-cache-status", "helicone-cache")

FEED_BYTES_MIN = 512
FEED_BYTES_MAX = 64 * 1024
"""After how many bytes of an answer more of it wants to be seen, at least and at most."""

Extending = Callable[[Extend], object]
"""Holds more at once, or says why not; ``None``: not yet."""


class MeteredCall:
    """Holds, watches and accounts for one call.

    Attributes:
        name: the reservation under which it is held. call: whose it is. provider: under which it is counted.
        response: the provider's own name for the answer, once it has ended.
        resumed: it was on its way before this agent knew of it.
        fed: how many bytes of its answer have come, those before a resumption included; ``None``: none yet.
        cut: why it gets no more, once an extension was refused and what is held is used up.
    """

    def __init__(
        self,
        estimates: Estimates,
        name: str,
        call: Call,
        provider: str | None,
        path: str,
        told: Told,
        estimate: Estimate = Estimate.SLICES,
        document_bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> None:
        self._estimates = estimates
        self.name = name
        self.call = call
        self.provider = provider
        self._path = path
        self._prompt = told.prompt
        self._streams = told.streams
        self._model = call.model or ""
        self._estimate = estimate
        self._held = self._first_output(estimate)
        self._inputs = estimates.input_tokens(self._model, self._prompt, estimate)
        self._reader: UsageReader | None = None
        self._stored = False
        self._others: tuple[Pass, ...] = ()
        self.response: str | None = None
        self._answered = False
        self._bytes_max = document_bytes_max
        self._ending: Settle | Release | None = None
        self._over = False
        self.resumed = False
        self.fed: int | None = None
        self.cut: Decision | ErrorReply | None = None

    def reserve(self, *, breakdown: bool = False) -> Reserve:
        """What must be held before it is sent. ``breakdown``: to be told how all limits stand."""
        more = list(Estimate)[list(Estimate).index(self._estimate) + 1 :]
        return Reserve(
            reservation=self.name,
            call=self.call,
            amounts=self._amounts(self._held),
            estimates={one: self._estimated(one) for one in more},
            deadline_ms=DEADLINE_MS,
            breakdown=breakdown,
        )

    def release(self) -> Release:
        """It did not happen."""
        return Release(reservation=self.name)

    def answered(self, headers: Mapping[str, str], reader: UsageReader | None = None) -> None:
        """Its answer begins. ``reader``: reads it, instead of one that expects all of it."""
        encoded = headers.get("content-encoding", "identity") != "identity"
        self._reader = None if encoded else reader or UsageReader(self._path, headers, self._bytes_max)
        self._stored = came_from_a_cache(headers)
        self._answered = True

    def feed(self, chunk: bytes, extend: Extending) -> None:
        """The next bytes of the answer; of a stream, more is held in time, or ``cut`` says why there is no more."""
        if self._reader is None:
            return
        self._reader.feed(chunk)
        if not self._streams:
            return
        wanted = self._next(self._held)
        if wanted is None:
            return
        reply = self._extend(wanted, extend)
        if isinstance(reply, Decision) and self._held < (reply.max_output_tokens or 0) < wanted:
            reply = self._extend(reply.max_output_tokens or 0, extend)  # the rest of what there is
        used_up = self._next(self._held + SLICE_TOKENS // 2) is not None
        if used_up and not is_allowed(reply) and isinstance(reply, Decision | ErrorReply):
            self.cut = reply

    def holds(self, held: Mapping[str, int]) -> None:
        """So much is held for it."""
        self._held = max(self._held, held.get(OUTPUT_TOKENS, 0))

    def resume(self, held: Mapping[str, int]) -> None:
        """It goes on with what is held for it already."""
        self.resumed = True
        self.holds(held)

    def take(self, offset: int, chunk: bytes, headers: Mapping[str, str], extend: Extending) -> bool:
        """Bytes of the answer that follow ``offset`` others; those that came before change nothing.

        Returns: whether they could be taken: ``False`` if some before them are missing.
        """
        if not self._answered and (chunk or headers):
            self.answered(headers)
        fed = offset if self.fed is None else self.fed
        if offset > fed:
            return False
        self.fed = max(fed, offset + len(chunk))
        if offset + len(chunk) > fed:
            self.feed(chunk[fed - offset :], extend)
        return True

    @property
    def kept_bytes(self) -> int:
        """How much of its answer may be kept, at most."""
        return min(self.fed or 0, self._bytes_max if self._streams else EVENTS_IN_BODY * self._bytes_max)

    def feed_within(self) -> int:
        """How many bytes of its answer may come before more must be held: in proportion to what came so far."""
        if not self._streams or self._reader is None:
            return FEED_BYTES_MAX
        outputs = self._reader.output_bytes
        if not outputs:
            return FEED_BYTES_MIN
        left = self._estimates.bytes_within(self._model, self._prompt, outputs, self._held)
        if left is None:
            return FEED_BYTES_MAX
        return min(FEED_BYTES_MAX, max(FEED_BYTES_MIN, left * (self.fed or 0) // outputs))

    def ended(self, status: int | None, *, whole: bool, sent: bool = True) -> Settle | Release | None:
        """What it came to: said by the provider, or estimated where it broke off before that. ``None``: the provider
        goes on by itself and will say it when it is asked (:mod:`agent.core.fetched`); what is held stays held.
        Asked again, the same.

        Args:
            status: of the answer; ``None``: none came. whole: the answer came to its end.
            sent: the request may have reached the provider.
        """
        if not self._over:
            self._ending = self._ended(status, whole, sent)
            self._over = True
        return self._ending

    def _ended(self, status: int | None, whole: bool, sent: bool) -> Settle | Release | None:
        usage = self._reader.end() if self._reader is not None else _nothing(whole=whole and status is not None)
        self.response, self._others = usage.response, () if self._stored else usage.others
        if self._stored and whole:
            usage = msgspec.structs.replace(usage, tokens={}, meters={}, usage_source=UsageSource.PROVIDER)
        said = usage.usage_source is UsageSource.PROVIDER or bool(usage.tokens or usage.meters)
        if not said and (not sent or (status is not None and status >= 300)):
            return self.release()
        if not said and whole and self._reader is not None and self._reader.running:
            return None
        if not whole and usage.outcome is Outcome.COMPLETE and not self._complete:
            usage = msgspec.structs.replace(usage, outcome=Outcome.ABORTED)
        if status is None or status >= 400:
            usage = msgspec.structs.replace(usage, outcome=Outcome.ERROR)
        # Under the name that was asked for: the answer's, with its date, is not known when the next is estimated.
        asked = self._model or usage.model or ""
        self._estimates.learn(asked, self._prompt, usage)
        usage = self._estimates.completed(asked, self._prompt, usage)
        return Settle(
            reservation=self.name,
            amounts=usage.meters,
            tokens=usage.tokens,
            usage_source=usage.usage_source,
            outcome=usage.outcome,
            model=usage.model or self._model or None,
            provider=self.provider,
            call=self.call,
        )

    def endings(self, status: int | None, *, whole: bool, sent: bool = True) -> Iterator[Settle | Release | Record]:
        """What is to be said now that it has ended: :meth:`ended`, and :meth:`others`."""
        ending = self.ended(status, whole=whole, sent=sent)
        if ending is not None:
            yield ending
        yield from self.others()

    def others(self) -> Iterator[Record]:
        """What other models used on the same call, once it has ended: events of their own, at those models' prices."""
        for number, one in enumerate(self._others, start=1):
            yield Record(
                event=f"{self.name}-{number}",
                call=msgspec.structs.replace(self.call, model=one.model),
                amounts={REQUESTS: 0},
                tokens=one.tokens,
                provider=self.provider,
            )

    @property
    def _complete(self) -> bool:
        return self._reader is not None and self._reader.complete

    def _extend(self, outputs: int, extend: Extending) -> object:
        reply = extend(Extend(reservation=self.name, amounts=self._amounts(outputs)))
        if is_allowed(reply):
            self._held = outputs
        return reply

    def _first_output(self, estimate: Estimate) -> int:
        if not answers_in_tokens(self._path):
            return 0
        if self._streams and estimate is Estimate.SLICES:
            return self._estimates.first_slice(self._prompt)
        return self._estimates.output_tokens(self._model, self._prompt, estimate)

    def _next(self, held: int) -> int | None:
        assert self._reader is not None
        return self._estimates.next_slice(self._model, self._prompt, self._reader.output_bytes, held)

    def _estimated(self, estimate: Estimate) -> dict[str, int]:
        inputs = self._estimates.input_tokens(self._model, self._prompt, estimate)
        return self._amounts(self._first_output(estimate)) | {INPUT_TOKENS: inputs}

    def _amounts(self, outputs: int) -> dict[str, int]:
        return {REQUESTS: 1, INPUT_TOKENS: self._inputs, OUTPUT_TOKENS: outputs}


def came_from_a_cache(headers: Mapping[str, str]) -> bool:
    """Whether a gateway between us and the provider says that it had the answer: nothing was used for it.

    Args:
        headers: names in lower case. ``Cache-Status`` is of RFC 9211, the others Cloudflare's, Portkey's, Helicone's.
    """
    if any(headers.get(name, "").upper().endswith("HIT") for name in _CACHES_SAY):
        return True
    return any(part.strip().lower() in ("hit", "hit=?1") for part in headers.get("cache-status", "").split(";")[1:])


def is_allowed(reply: object) -> bool:
    """Whether it says that a call may go ahead."""
    return isinstance(reply, Decision) and reply.decision is Verdict.ALLOW


def _nothing(*, whole: bool) -> Usage:
    return Usage({}, {}, UsageSource.NONE, Outcome.COMPLETE if whole else Outcome.ABORTED)
