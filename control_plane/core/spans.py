"""Spans: which calls of models they tell of, by OpenTelemetry's GenAI conventions, and which tell of the same. Pure.

https://github.com/open-telemetry/semantic-conventions-genai; older names of attributes are read as well. Its counts are
inclusive: input tokens include what a cache read and wrote, output tokens include reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from protocol.ids import KEY_WORDS, is_key, is_model_name
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation

Value = str | bool | int | float | None
Attributes = Mapping[str, Value]

_USAGE = "gen_ai.usage."
INPUT = (_USAGE + "input_tokens", _USAGE + "prompt_tokens", "llm.usage.prompt_tokens")
OUTPUT = (_USAGE + "output_tokens", _USAGE + "completion_tokens", "llm.usage.completion_tokens")
CACHE_READ = (_USAGE + "cache_read.input_tokens", _USAGE + "cache_read_input_tokens")
CACHE_WRITE = (
    _USAGE + "cache_write.input_tokens", _USAGE + "cache_creation.input_tokens", _USAGE + "cache_creation_input_tokens",
)  # fmt: skip
REASONING = (_USAGE + "reasoning.output_tokens", _USAGE + "reasoning_tokens")
INPUT_AUDIO, INPUT_IMAGE = (_USAGE + "audio.input_tokens",), (_USAGE + "image.input_tokens",)
OUTPUT_AUDIO, OUTPUT_IMAGE = (_USAGE + "audio.output_tokens",), (_USAGE + "image.output_tokens",)

OPERATION = "gen_ai.operation.name"
MODEL = ("gen_ai.response.model", "gen_ai.request.model")
PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
RESPONSE = ("gen_ai.response.id",)
SUMS = frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"})
"""Operations that are made of calls: their usage is that of the calls inside them."""

CUSTOMER, FEATURE = "allotment.customer", "allotment.feature"
SUBJECTS = ("user", "workspace", "role", "api_key")
TAG = "allotment.tag."
DEPTH_MAX = 32
"""How many spans around one are looked at."""
FAILURE = "error.type"
READ = ("gen_ai.", "llm.usage.", "allotment.", FAILURE)
"""Attributes that begin so are read; no others, and so no content of calls but what these hold."""


class SpanName(NamedTuple):
    """What the event of a span is made of, in hexadecimal; ``parent`` and ``response`` are empty where there is none.

    Attributes:
        response: digest of the provider's id of the answer.
    """

    trace: str
    span: str
    parent: str
    response: str

    @property
    def event(self) -> str:
        """The name of its event in the ledger."""
        return f"span~{self.trace}~{self.span}~{self.parent or '-'}~{self.response or '-'}"

    @property
    def place(self) -> tuple[int, int]:
        """Boot and sequence number that are the event's own in its trace's journal."""
        number = int.from_bytes(blake2b(self.event.encode(), digest_size=8).digest())
        return number >> 62, number & (2**62 - 1)


_NAME = re.compile(r"span~([0-9a-f]{32})~([0-9a-f]{16})~([0-9a-f]{16}|-)~([0-9a-f]{16}|-)\Z")


def parse_name(event: str) -> SpanName | None:
    """The span of which an event tells; ``None``: it is another one's name."""
    found = _NAME.match(event)
    return SpanName(*(part.strip("-") for part in found.groups())) if found else None


def response_digest(attributes: Attributes) -> str:
    """The provider's id of the answer, short enough for a name; ``""`` without one."""
    said = _first(attributes, RESPONSE)
    return blake2b(said.encode(), digest_size=8).hexdigest() if isinstance(said, str) and said else ""


def is_call(attributes: Attributes) -> bool:
    """Whether a span says what one call of a model used."""
    return attributes.get(OPERATION) not in SUMS and any(attributes.get(name) is not None for name in INPUT + OUTPUT)


def tokens_of(attributes: Attributes) -> dict[str, int]:
    """Its tokens by disjoint class. Raises: Violation: a count that is none."""
    inputs, outputs = _count(attributes, INPUT), _count(attributes, OUTPUT)
    read, write = _count(attributes, CACHE_READ), _count(attributes, CACHE_WRITE)
    if read + write > inputs:  # whoever wrote it counts them beside each other, as Anthropic does
        inputs += read + write
    audio, image = _fitted(inputs - read - write, _count(attributes, INPUT_AUDIO), _count(attributes, INPUT_IMAGE))
    reasoning = _count(attributes, REASONING)
    if reasoning > outputs:
        outputs += reasoning
    audio_out, image_out = _fitted(
        outputs - reasoning, _count(attributes, OUTPUT_AUDIO), _count(attributes, OUTPUT_IMAGE)
    )
    found = {
        "input": inputs - read - write - audio - image,
        "cache_read": read,
        "cache_write": write,
        "input_audio": audio,
        "input_image": image,
        "output": outputs - reasoning - audio_out - image_out,
        "reasoning": reasoning,
        "output_audio": audio_out,
        "output_image": image_out,
    }
    return {name: count for name, count in found.items() if count}


def key_of(attributes: Attributes, name: str, field: str) -> str | None:
    """An attribute that is a key of ours. Raises: Violation: it cannot be."""
    value = attributes.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not is_key(value):
        raise Violation(field, f"is {str(value)[:80]!r}", KEY_WORDS)
    return value


def tags_of(attributes: Attributes) -> dict[str, str]:
    """Its tags. Raises: Violation: one that cannot be."""
    found = {}
    for name in attributes:
        if name.startswith(TAG):
            value = key_of(attributes, name, name[:80])
            if value is not None and is_key(name.removeprefix(TAG)):
                found[name.removeprefix(TAG)] = value
    return found


def model_of(attributes: Attributes) -> str | None:
    """The model that answered, else the one that was asked, if its name may be on our wires."""
    said = _first(attributes, MODEL)
    return said if isinstance(said, str) and is_model_name(said) else None


def provider_of(attributes: Attributes) -> str | None:
    """The provider, if its name may be on our wires."""
    said = _first(attributes, PROVIDER)
    return said if isinstance(said, str) and is_key(said) else None


@dataclass(frozen=True)
class Trace:
    """What is known of one trace of a customer.

    Attributes:
        parents: of the spans of this request, whether they tell of calls or not.
        counted: spans that are in the ledger.
    """

    parents: Mapping[str, str]
    counted: tuple[SpanName, ...]


def described(names: Iterable[SpanName], trace: Trace) -> dict[SpanName, SpanName | None]:
    """Which spans of a trace tell of calls that another span tells of, too; ``None``: it is to be counted itself.

    One call may be told twice: by an instrumented framework, and by the provider's instrumented SDK inside it. Of spans
    of which one is inside the other the innermost counts, and the first that came, where they come one after the other;
    so does the first of those that have one answer of the provider's, by its id.
    """
    here: dict[str, SpanName] = {}
    found: dict[SpanName, SpanName | None] = {}
    for name in names:
        if here.setdefault(name.span, name) != name:
            found[name] = here[name.span]
    inner = {around: name for name in here.values() for around in _around(name, trace.parents)}
    inner |= {around: name for name in trace.counted for around in _around(name, trace.parents)}
    counted = {name.span: name for name in trace.counted}
    answers = {name.response: name for name in trace.counted if name.response}
    for name in here.values():
        outer = next((counted[around] for around in _around(name, trace.parents) if around in counted), None)
        same = counted.get(name.span)
        found[name] = same or inner.get(name.span) or outer or answers.get(name.response)
        if found[name] is None and name.response:
            answers[name.response] = name
    return found


def innermost_first(name: SpanName, parents: Mapping[str, str]) -> tuple[str, int]:
    """A key to sort by: those of one trace together, and of them the innermost first."""
    return name.trace, -len(_around(name, parents))


def _around(name: SpanName, parents: Mapping[str, str]) -> list[str]:
    """The span around it, the one around that, and so on, as far as they are known and no further than that helps."""
    found: dict[str, None] = {}
    around = name.parent
    while around and around != name.span and around not in found and len(found) < DEPTH_MAX:
        found[around] = None
        around = parents.get(around, "")
    return list(found)


def _first(attributes: Attributes, names: Iterable[str]) -> Value:
    return next((value for name in names if (value := attributes.get(name)) is not None), None)


def _count(attributes: Attributes, names: tuple[str, ...]) -> int:
    value = _first(attributes, names)
    if value is None:
        return 0
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= QUANTITY_MAX:
        name = next(name for name in names if attributes.get(name) is not None)
        raise Violation(name, f"is {str(value)[:80]}", f"a whole number, 0 to {QUANTITY_MAX}")
    return number


def _fitted(whole: int, *parts: int) -> list[int]:
    """Parts of a whole that are no more than it."""
    fitted = []
    for part in parts:
        fitted.append(min(part, whole))
        whole -= fitted[-1]
    return fitted
