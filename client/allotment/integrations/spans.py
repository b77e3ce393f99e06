"""What a span of a model's call tells: which call it was, whose, and what it used; and which spans tell of the same.

OpenTelemetry's GenAI conventions, old names of attributes as well; the control plane reads exported spans alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from allotment.integrations.amounts import as_key, disjoint, whole

_USAGE = "gen_ai.usage."
INPUT = (f"{_USAGE}input_tokens", f"{_USAGE}prompt_tokens", "llm.usage.prompt_tokens")
OUTPUT = (f"{_USAGE}output_tokens", f"{_USAGE}completion_tokens", "llm.usage.completion_tokens")
PARTS = {
    "cache_read": (f"{_USAGE}cache_read.input_tokens", f"{_USAGE}cache_read_input_tokens"),
    "cache_write": (
        f"{_USAGE}cache_write.input_tokens",
        f"{_USAGE}cache_creation.input_tokens",
        f"{_USAGE}cache_creation_input_tokens",
    ),
    "input_audio": (f"{_USAGE}audio.input_tokens",),
    "input_image": (f"{_USAGE}image.input_tokens",),
    "reasoning": (f"{_USAGE}reasoning.output_tokens", f"{_USAGE}reasoning_tokens"),
    "output_audio": (f"{_USAGE}audio.output_tokens",),
    "output_image": (f"{_USAGE}image.output_tokens",),
}
SUMS = frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"})
"""Operations that are made of calls: their usage is that of the calls inside them."""

WHOSE = ("customer", "feature", "user", "workspace", "role", "api_key")
PREFIX = "allotment."
TAG = f"{PREFIX}tag."

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+~/-]{0,127}")


class Node:
    """One span on its way, and the spans around it; they are kept as long as something inside them is on its way.

    Attributes:
        said: what its context said when it began, by ``allotment.`` names.
        counted: its usage is counted; ``inner``: that of a span inside it is.
        answers: of all spans of its trace here, the provider's answers that are counted.
    """

    __slots__ = ("answers", "around", "counted", "inner", "said", "span")

    def __init__(self, span: Any, around: Node | None, said: Mapping[str, str]) -> None:
        self.span = span
        self.around = around
        self.said = said
        self.counted = self.inner = False
        self.answers: set[str] = around.answers if around is not None else set()

    def outer(self) -> Iterator[Node]:
        """The spans around it, from the inside out."""
        node = self.around
        while node is not None:
            yield node
            node = node.around

    def described(self, answer: str) -> bool:
        """Whether another span told of the same call, and marks it as counted here where none did.

        One call may be told twice: by an instrumented framework, and by the provider's instrumented SDK inside it. Of
        spans inside each other the innermost counts, because it ends first; so does the first that has one answer of
        the provider's, by its id.
        """
        if self.inner or answer in self.answers or any(node.counted for node in self.outer()):
            return True
        self.counted = True
        for node in self.outer():
            node.inner = True
        if answer:
            self.answers.add(answer)
        return False

    def whose(self, attributes: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, Any]:
        """Whose call it was: said by itself, by a span around it or their baggage, or else as usual."""
        found: dict[str, Any] = {}
        tags: dict[str, str] = {}
        for said in (attributes, self.said, *self._said_around(), usual):
            for name in WHOSE:
                if said.get(PREFIX + name):
                    found.setdefault(name, str(said[PREFIX + name]))
            for name, value in said.items():
                if name.startswith(TAG) and len(tags) < 8:
                    tags.setdefault(name.removeprefix(TAG), str(value))
        return found | ({"tags": tags} if tags else {})

    def _said_around(self) -> Iterator[Mapping[str, Any]]:
        for node in self.outer():
            yield node.span.attributes or {}
            yield node.said


def is_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span says what one call of a model used."""
    if attributes.get("gen_ai.operation.name") in SUMS:
        return False
    return any(attributes.get(name) is not None for name in INPUT + OUTPUT)


def tokens_of(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Its tokens by class. The conventions' sums include their parts; where parts are more, they were counted apart."""
    inputs, outputs = whole(_first(attributes, INPUT)), whole(_first(attributes, OUTPUT))
    parts = {name: whole(_first(attributes, names)) for name, names in PARTS.items()}
    if parts["cache_read"] + parts["cache_write"] > inputs:
        inputs += parts["cache_read"] + parts["cache_write"]
    if parts["reasoning"] > outputs:
        outputs += parts["reasoning"]
    return disjoint(inputs, outputs, **parts)


def answer_of(attributes: Mapping[str, Any]) -> str:
    """The provider's id of the answer, short enough for a name; empty without one."""
    said = attributes.get("gen_ai.response.id")
    return hashlib.blake2b(str(said).encode(), digest_size=8).hexdigest() if said else ""


def event_of(span: Any, answer: str) -> str:
    """The name of its event: the same for the same span, however often it is said."""
    context, parent = span.context, span.parent
    around = f"{parent.span_id:016x}" if parent is not None else "-"
    return f"span~{context.trace_id:032x}~{context.span_id:016x}~{around}~{answer or '-'}"


def model_of(attributes: Mapping[str, Any]) -> str | None:
    """The model that answered, else the one that was asked."""
    said = _first(attributes, ("gen_ai.response.model", "gen_ai.request.model"))
    return said if isinstance(said, str) and _MODEL.fullmatch(said) else None


def provider_of(attributes: Mapping[str, Any]) -> str | None:
    """The provider."""
    return as_key(_first(attributes, ("gen_ai.provider.name", "gen_ai.system")))


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := attributes.get(name)) is not None), None)
