"""Calls that another proxy passes on: what its question tells of one, what to hold for it, what it came to. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.core.attribution import PREFIX, call_of
from agent.core.estimate import SLICE_TOKENS, Bound, Estimates
from agent.core.paths import answers_in_tokens, is_metered
from agent.core.prompts import Prompt, prompt_of
from agent.core.tokens.names import model_in
from agent.core.tokens.read import DOCUMENT_BYTES_MAX, UsageReader
from agent.core.tokens.usage import Usage
from protocol.events import Outcome, UsageSource
from protocol.ids import KEY_WORDS, MODEL_WORDS, Key, is_key, is_model_name
from protocol.local_messages import Call, Release, Settle
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, QUANTITY_MAX, REQUESTS, Amounts
from protocol.violations import Violation

UNSAID_BYTES = 4_096
"""How large a request is taken to be of which nothing is said."""

LONG_ANSWER_TOKENS = 2_048
"""What is held at most of an answer that its request does not bound, and whose use will be said."""

ENDS_BYTES_MAX = 4_096
"""How much of one document is held where only the ends of an answer came: so that its tail is read as one."""

Headers = Mapping[bytes, bytes]


class Passed(msgspec.Struct, frozen=True, gc=False):
    """One call that a proxy is about to pass on, or has.

    Attributes:
        path: of the request. model, provider: as far as they are known.
        amounts: what the proxy wants held, instead of an estimate.
        settles: the proxy will say what the answer was. If not, what is held is what counts.
    """

    call: Call
    path: str
    prompt: Prompt
    model: str
    provider: Key | None
    amounts: Amounts | None
    settles: bool


def passed(method: str, path: str, headers: Headers, body: bytes) -> Passed | None:
    """The call that a proxy asks about, ``None`` if it costs nothing.

    Args:
        headers: names in lower case; ``x-allotment-*`` as the proxy sets them.
        body: of the request, as much of it as the proxy sends.

    Raises: Violation: by the header's name.
    """
    amounts = _amounts(headers)
    if amounts is None and not is_metered(method, path):
        return None
    prompt, model = _prompt(headers, body)
    said = _said(headers, "model")
    if said is not None and not is_model_name(said):
        raise Violation("x-allotment-model", f"is {ascii(said)[:80]}", MODEL_WORDS)
    provider = _said(headers, "provider")
    if provider is not None and not is_key(provider):
        raise Violation("x-allotment-provider", f"is {ascii(provider)[:80]}", KEY_WORDS)
    model = said or model or model_in(path)
    settles = _said(headers, "settles") or "yes"
    if settles not in ("yes", "no"):
        raise Violation("x-allotment-settles", f"is {ascii(settles)[:80]}", "yes or no")
    call = call_of(headers, model, None, None)
    return Passed(call, path, prompt, call.model or "", provider, amounts, settles == "yes")


def to_hold(asked: Passed, estimates: Estimates) -> dict[str, int]:
    """What to hold for it: the most, if it will be settled; what is likely, if that is all that will ever be known."""
    if asked.amounts is not None:
        return asked.amounts
    prompt, model = asked.prompt, asked.model
    if asked.settles:
        inputs = estimates.input_tokens(model, prompt, Bound.P95)
        outputs = estimates.output_tokens(model, prompt, Bound.P95)
        if prompt.output_max is None:
            outputs = min(outputs, LONG_ANSWER_TOKENS * prompt.choices)
    else:
        inputs = estimates.likely_input(model, prompt)
        outputs = min(SLICE_TOKENS, prompt.output_max or SLICE_TOKENS) * prompt.choices
    return {REQUESTS: 1, INPUT_TOKENS: inputs, OUTPUT_TOKENS: outputs if answers_in_tokens(asked.path) else 0}


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


def ended(name: str, asked: Passed | None, answer: Answer, estimates: Estimates) -> Settle | Release:
    """What the call of reservation ``name`` came to: said by the provider, or else estimated."""
    usage, complete = _read(asked, answer)
    said = usage.usage_source is UsageSource.PROVIDER or bool(usage.tokens or usage.meters)
    failed = answer.status is None or answer.status >= 400
    if not said and (not answer.sent or (failed and answer.status is not None)):
        return Release(reservation=name)
    if not answer.whole and not complete:
        usage = msgspec.structs.replace(usage, outcome=Outcome.ABORTED)
    elif failed:
        usage = msgspec.structs.replace(usage, outcome=Outcome.ERROR)
    model = usage.model or (asked.model if asked else "")
    prompt = asked.prompt if asked else None
    amounts, tokens, source, outcome = usage.meters, usage.tokens, usage.usage_source, usage.outcome
    if source is UsageSource.PROVIDER:
        if prompt is not None and answer.size == len(answer.body):
            estimates.learn(model, prompt, usage)
    elif asked is not None and answer.whole and not said and (asked.amounts is not None or not answer.is_read):
        amounts = to_hold(msgspec.structs.replace(asked, settles=False), estimates)
        source, outcome = UsageSource.ESTIMATED, Outcome.ERROR if failed else Outcome.COMPLETE
    else:
        usage = estimates.completed(model, prompt, usage)
        tokens, source = usage.tokens, usage.usage_source
    return Settle(
        reservation=name,
        amounts=amounts,
        tokens=tokens,
        usage_source=source,
        outcome=outcome,
        model=model or None,
        provider=asked.provider if asked else None,
        call=asked.call if asked else None,
    )


def unsettled(name: str, asked: Passed, amounts: dict[str, int]) -> Settle:
    """What is counted for a call of which nobody will say more."""
    return Settle(
        reservation=name,
        amounts=amounts,
        usage_source=UsageSource.ESTIMATED,
        model=asked.model or None,
        provider=asked.provider,
        call=asked.call,
    )


def _read(asked: Passed | None, answer: Answer) -> tuple[Usage, bool]:
    """What the answer says, and whether it says that nothing follows."""
    gap = answer.size > len(answer.body)
    path = asked.path if asked else ""
    reader = UsageReader(path, answer.headers, ENDS_BYTES_MAX if gap else DOCUMENT_BYTES_MAX)
    if answer.is_read:
        reader.feed(answer.body)
    usage = reader.end()
    if gap and answer.body:
        streamed = usage.output_bytes * answer.size // len(answer.body)
        usage = msgspec.structs.replace(usage, output_bytes=streamed)
    return usage, reader.complete


def _prompt(headers: Headers, body: bytes) -> tuple[Prompt, str | None]:
    size = _number(headers, "body-bytes", QUANTITY_MAX)
    part = headers.get(b"x-envoy-auth-partial-body") == b"true" or (size or 0) > len(body)
    if part or not body:
        bytes_at_least = max(len(body), size or 0) if part or size is not None else UNSAID_BYTES
        return Prompt(bytes_at_least), None
    kind = headers.get(b"content-type", b"application/json").lower()
    if not kind.startswith(b"application/json"):
        return Prompt(0, media=1), None
    return prompt_of(body), _model(body)


class _Named(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


_decode_named = msgspec.json.Decoder(_Named).decode


def _model(body: bytes) -> str | None:
    try:
        found = msgspec.json.decode(_decode_named(body).model)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) and is_model_name(found) else None


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
