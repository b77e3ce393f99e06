"""Calls that another proxy passes on: what its question tells of one, what to hold for it, what it came to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from agent.core.attribution import PREFIX, call_of
from agent.core.estimate import SLICE_TOKENS, Estimates
from agent.core.metered_call import MeteredCall
from agent.core.paths import answers_in_tokens, is_metered
from agent.core.prompts import Prompt
from agent.core.tokens.names import model_in
from agent.core.tokens.read import UsageReader
from agent.core.tokens.usage import Usage
from agent.core.told import Told, told_by
from protocol.events import Outcome, UsageSource
from protocol.ids import KEY_WORDS, MODEL_WORDS, Key, is_key, is_model_name
from protocol.local_messages import Call, Record, Release, Reserve, Settle
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, QUANTITY_MAX, REQUESTS, Amounts
from protocol.violations import Violation

UNSAID_BYTES = 4_096
"""How large a request is taken to be of which nothing is said."""

PATH_CHARS_MAX = 512
"""How much of a path is kept: it names the kind of call, and with some providers the model."""

ENDS_BYTES_MAX = 4_096
"""How much of one document is held where only the ends of an answer came: so that its tail is read as one."""

Headers = Mapping[bytes, bytes]


class Passed(msgspec.Struct, frozen=True, gc=False):
    """One call that a proxy is about to pass on, or has.

    Attributes:
        path: of the request. told: what it tells. provider: if the proxy says so.
        amounts: what the proxy wants held, instead of an estimate.
        settles: the proxy will say what the answer was. If not, what is held is what counts.
    """

    call: Call
    path: str
    told: Told
    provider: Key | None
    amounts: Amounts | None
    settles: bool


def counts(method: str, path: str, headers: Headers) -> bool:
    """Whether a call that a proxy asks about may cost anything, or is to be counted in any case."""
    return PREFIX + b"amounts" in headers or is_metered(method, path)


def passed(path: str, headers: Headers, body: bytes) -> Passed:
    """The call that a proxy asks about.

    Args:
        headers: names in lower case; ``x-allotment-*`` as the proxy sets them.
        body: of the request, as much of it as the proxy sends.

    Raises: Violation: by the header's name.
    """
    path = path.partition("?")[0][:PATH_CHARS_MAX]
    told = _told(headers, path, body)
    said = _said(headers, "model")
    if said is not None and not is_model_name(said):
        raise Violation("x-allotment-model", f"is {ascii(said)[:80]}", MODEL_WORDS)
    provider = _said(headers, "provider")
    if provider is not None and not is_key(provider):
        raise Violation("x-allotment-provider", f"is {ascii(provider)[:80]}", KEY_WORDS)
    settles = _said(headers, "settles") or "yes"
    if settles not in ("yes", "no"):
        raise Violation("x-allotment-settles", f"is {ascii(settles)[:80]}", "yes or no")
    call = call_of(headers, said or told.model, None, None)
    return Passed(call, path, told, provider, _amounts(headers), settles == "yes")


def reserved(name: str, asked: Passed, estimates: Estimates) -> Reserve:
    """What to hold for it: what its limits ask for, if it will be settled; what is likely, if that is all that will
    ever be known of it."""
    if asked.settles and asked.amounts is None:
        return _metered(name, asked, estimates).reserve()
    return Reserve(reservation=name, call=asked.call, amounts=_likely(asked, estimates))


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a proxy has seen of an answer.

    Attributes:
        status: ``None``: none came. sent: the request may have reached the provider. whole: the answer came to its end.
        body: its bytes, or its two ends; ``size``: how many bytes there were.
    """

    status: int | None
    sent: bool
    whole: bool
    headers: dict[str, str]
    body: bytes
    size: int

    @property
    def is_read(self) -> bool:
        """Whether its bytes tell anything."""
        return bool(self.body) and self.headers.get("content-encoding", "identity") == "identity"


def answer_of(headers: Headers, body: bytes) -> Answer:
    """What a proxy says of an answer. Raises: Violation: by the header's name."""
    outcome = _said(headers, "outcome")
    if outcome not in ("complete", "aborted", "unsent"):
        shown = "missing" if outcome is None else ascii(outcome)[:80]
        raise Violation("x-allotment-outcome", f"is {shown}", "complete, aborted or unsent")
    status = _number(headers, "status", 999)
    size = _number(headers, "answer-bytes", QUANTITY_MAX)
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    return Answer(status or None, outcome != "unsent", outcome == "complete", names, body, max(len(body), size or 0))


def ended(name: str, asked: Passed, answer: Answer, estimates: Estimates) -> Iterator[Settle | Release | Record]:
    """What the call of reservation ``name`` came to: said by the provider, or estimated. Nothing while it goes on."""
    metered = _metered(name, asked, estimates)
    reader = _Ends(asked.path, answer) if answer.size > len(answer.body) else None
    if answer.status is not None:
        metered.answered(answer.headers, reader)
        metered.feed(answer.body, lambda _: None)
    ending = metered.ended(answer.status, whole=answer.whole, sent=answer.sent)
    if isinstance(ending, Settle) and answer.whole and ending.usage_source is not UsageSource.PROVIDER:
        known = asked.amounts is None and answer.is_read
        ending = ending if known else unsettled(name, asked, _likely(asked, estimates))
    if ending is not None:
        yield ending
    yield from metered.others()


def unsettled(name: str, asked: Passed, amounts: dict[str, int]) -> Settle:
    """What is counted for a call that has ended, or will, and of which nobody will say more."""
    return Settle(
        reservation=name,
        amounts=amounts,
        usage_source=UsageSource.ESTIMATED,
        outcome=Outcome.COMPLETE,
        model=asked.call.model,
        provider=asked.provider,
        call=asked.call,
    )


class _Ends(UsageReader):
    """Reads an answer of which the two ends have come; what is between is taken to be of the same kind."""

    __slots__ = ("_all", "_here")

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(path, answer.headers, ENDS_BYTES_MAX)
        self._here, self._all = len(answer.body), answer.size

    def end(self) -> Usage:
        usage = super().end()
        output_bytes = usage.output_bytes * self._all // self._here if self._here else 0
        return msgspec.structs.replace(usage, output_bytes=output_bytes)


def _metered(name: str, asked: Passed, estimates: Estimates) -> MeteredCall:
    told = asked.told._replace(streams=False)  # nobody could hold more while it streams
    return MeteredCall(estimates, name, asked.call, asked.provider, asked.path, told)


def _likely(asked: Passed, estimates: Estimates) -> dict[str, int]:
    if asked.amounts is not None:
        return asked.amounts
    prompt = asked.told.prompt
    outputs = min(SLICE_TOKENS, prompt.output_max or SLICE_TOKENS) * prompt.choices
    return {
        REQUESTS: 1,
        INPUT_TOKENS: estimates.likely_input(asked.call.model or "", prompt),
        OUTPUT_TOKENS: outputs if answers_in_tokens(asked.path) else 0,
    }


def _told(headers: Headers, path: str, body: bytes) -> Told:
    """What is told of a request by as much of it as came, or by its size alone."""
    size = _number(headers, "body-bytes", QUANTITY_MAX)
    if not body:
        return Told(Prompt(UNSAID_BYTES if size is None else size), model_in(path), streams=False)
    if headers.get(b"x-envoy-auth-partial-body") == b"true" or (size or 0) > len(body):
        return Told(Prompt(max(len(body), size or 0)), model_in(path), streams=False)
    kind = headers.get(b"content-type", b"application/json").decode("latin-1").lower()
    return told_by(path, kind, body)


def _amounts(headers: Headers) -> dict[str, int] | None:
    """``requests=1, output_tokens=512``."""
    said = _said(headers, "amounts")
    if said is None:
        return None
    found: dict[str, str] = {}
    for part in said.split(","):
        meter, _, amount = part.partition("=")
        found[meter.strip()] = amount.strip()
    try:
        return msgspec.convert(found, Amounts, strict=False)
    except msgspec.ValidationError as error:
        raise Violation(
            "x-allotment-amounts", f"are {ascii(said)[:80]}: {error}", "meters and whole numbers, as in requests=1"
        ) from None


def _number(headers: Headers, name: str, most: int) -> int | None:
    said = _said(headers, name)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) <= 16 and int(said) <= most):
        raise Violation(f"x-allotment-{name}", f"is {ascii(said)[:80]}", f"a whole number, 0 to {most}")
    return int(said)


def _said(headers: Headers, name: str) -> str | None:
    return headers.get(PREFIX + name.encode(), b"").decode("latin-1").strip() or None
