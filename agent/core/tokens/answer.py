"""What the documents of one answer say together: one whole body, or the events of a stream in their order.

Providers' counts are cumulative: the last word on each field holds, nothing is ever added up. So an event that comes
twice counts once.
"""

from __future__ import annotations

from typing import Any

from agent.core.tokens import names, openai, parts
from agent.core.tokens import slots as s
from agent.core.tokens.anthropic import with_iterations
from agent.core.tokens.bounded import Overlong
from agent.core.tokens.classes import token_classes
from agent.core.tokens.documents import Document, among, decode
from agent.core.tokens.places import in_batch, others_in, usage_in
from agent.core.tokens.shapes import read_usage
from agent.core.tokens.slots import Slots, walk
from agent.core.tokens.usage import Pass, Troubles, Usage
from protocol.events import Outcome, UsageSource

PARTS_MAX = 4_096
"""How many calls of tools, searches and images of one answer are told apart; more are reported, and not counted."""

FIELDS_MAX = 256
"""How many fields of usage one answer may have."""

CHOICES_MAX = 1_024

DONE = b"[DONE]"

_ENDS = frozenset({
    "message_stop", "response.completed", "response.incomplete", "response.failed", "response.cancelled",
    "response.done", "image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done",
})  # fmt: skip
"""Events after which nothing follows that counts."""

_FINAL = frozenset({"message_delta", "message-end"})
"""Events whose usage is final, though others follow."""

_FAILED = frozenset({"error", "failed", "errored", "expired"})
_RUNNING = frozenset({"in_progress", "queued", "validating", "finalizing"})
_UNFINISHED = _RUNNING | {"cancelled", "canceled", "cancelling"}


class Answer:
    """Takes in the documents of one answer, and tells what it used so far.

    Attributes:
        output_bytes: UTF-8 bytes of output seen so far.
        ended: the provider has said that nothing follows.
        running: it has said, in an answer that came whole, that it goes on by itself.
    """

    __slots__ = (
        "_batch", "_elsewhere", "_failed", "_final", "_finished", "_finishes", "_model", "_others", "_parts",
        "_path_model", "_response", "_seen", "_troubles", "_unfinished", "_usage", "ended", "output_bytes", "running",
    )  # fmt: skip

    def __init__(self, path: str = "") -> None:
        self._path_model = names.model_in(path)
        self._usage: dict[str, Any] = {}
        self._elsewhere: dict[str, Any] = {}
        self._others: dict[str, dict[str, Any]] = {}
        self._parts: dict[parts.Key, None] = {}
        self._seen: set[object] = set()
        self._finished: set[object] = set()
        self._model: Any = None
        self._response: Any = None
        self._batch = self._failed = self._unfinished = self._final = self._finishes = self.ended = self.running = False
        self._troubles = Troubles()
        self.output_bytes = 0

    def take(self, data: bytes | Overlong, *, whole: bool = False, cut: bool = False) -> None:
        """One document more. ``whole``: it is all of the answer. ``cut``: it may have been cut off."""
        if self.ended:
            return
        if data == DONE:
            self.ended = True
            self._final = self._final or bool(self._usage)
            return
        document = decode(data, self._troubles, cut=cut)
        if document is None:
            return
        ends = whole or among(document.type, _ENDS)
        before = self._finishes
        self._note_finish(document)
        if not whole and not (before and self._finishes):
            self.output_bytes += parts.text_bytes(document)
        said = self._read(document, ends=ends)
        if ends or (said and (self._finishes or document.choices == [] or among(document.type, _FINAL))):
            self._final = self._final or bool(self._usage)
        self._finishes = self._finishes or ends
        self.ended = self.ended or (ends and not whole)
        if whole and not self._usage and isinstance(data, bytes):
            self.output_bytes += parts.whole_bytes(data)

    def take_counts(self, counts: dict[str, Any]) -> None:
        """What is said elsewhere, such as in headers: it counts where the answer itself says nothing."""
        self._elsewhere = counts

    def fail(self) -> None:
        """The transport told of an error."""
        self._failed = True

    def trouble(self, where: str, problem: str) -> None:
        """Something about the bytes was not understood."""
        self._troubles.add(where, problem)

    def as_usage(self) -> Usage:
        """What it comes to so far."""
        troubles = self._troubles.copy()
        said = self._usage or self._elsewhere
        slots = read_usage(said, troubles)
        final = bool(slots) and (self._final or not self._usage)
        model = names.model_of(self._model, troubles) or self._path_model
        others = self._others_read(troubles)
        if s.OUTPUT in slots and "output_tokens_details" not in said and any(key[1] == "data" for key in self._parts):
            slots.setdefault(s.OUTPUT_IMAGE, slots[s.OUTPUT])  # an image interface puts out nothing else
        tokens = token_classes(slots, troubles)
        if said.get("iterations"):
            tokens, more = with_iterations(tokens, said["iterations"], model, slots, troubles)
            others += more
        return Usage(
            tokens,
            self._meters(slots),
            UsageSource.PROVIDER if final else UsageSource.NONE,
            self._outcome(),
            model,
            names.response_of(self._response, troubles),
            self._batch,
            self.output_bytes,
            others,
            troubles.as_tuple(),
            troubles.more,
        )

    def _note_finish(self, document: Document) -> None:
        """Note which of several answers have finished: the whole has when all have."""
        for choice in document.choices or document.candidates or ():
            index = parts.hashable(choice.index)
            if len(self._seen) < CHOICES_MAX:
                self._seen.add(index)
            if choice.finish_reason:
                self._finished.add(index if index in self._seen else None)
                self._failed = self._failed or choice.finish_reason == "error"
        if document.choices or document.candidates:
            self._finishes = self._seen <= self._finished
            return
        if (
            among(document.type, _FINAL)
            or document.done is True
            or document.message_stop is not None
            or (isinstance(document.metadata, dict) and "usage" in document.metadata)
            or (isinstance(document.prompt_feedback, dict) and document.prompt_feedback.get("blockReason"))
        ):
            self._finishes = True

    def _read(self, document: Document, *, ends: bool) -> bool:
        """Take what it says; whether it says anything of usage. Most documents are a few words of text: soon done."""
        self._model = document.model or document.model_version or self._model
        self._response = document.id or document.response_id or self._response
        if document.error or among(document.type, _FAILED):
            self._failed = True
        if isinstance(document.metrics, dict) and len(document.metrics) <= FIELDS_MAX:
            self._elsewhere = document.metrics
        for key in parts.parts_of(document):
            if len(self._parts) < PARTS_MAX:
                self._parts[key] = None
            elif key not in self._parts:
                self._troubles.add(key[0], f"are more than {PARTS_MAX}: the rest is not counted")
        usage = usage_in(document)
        said = self._say(usage) if usage else False
        if said or ends or document.choices is None:
            said = self._read_more(document, ends=ends) or said
        return said

    def _read_more(self, document: Document, *, ends: bool) -> bool:
        """What only some documents say; and documents inside this one."""
        self._batch = self._batch or in_batch(document)
        if isinstance(document.status_code, int) and document.status_code >= 400:
            self._failed = True
        if ends:
            self._failed = self._failed or among(document.status, _FAILED)
            self._unfinished = among(document.status, _UNFINISHED) or among(document.type, _UNFINISHED)
            self.running = among(document.status, _RUNNING)
        if document.tool_usage is not None or document.svg_usage is not None:
            self._others |= others_in(document)
        said = False
        for inner in (document.message, document.response, document.result, document.body, document.model_output):
            if inner is not None and not isinstance(inner, str):
                said = self._read(inner, ends=ends) or said
        return said

    def _say(self, usage: Any) -> bool:
        if not isinstance(usage, dict):
            self._troubles.add("usage", "is not understood: no object")
            return False
        said = self._usage
        for name, value in usage.items():
            before = said.get(name)
            if value is None or (before is None and len(said) >= FIELDS_MAX):
                continue
            if value == 0 and isinstance(before, int) and before > 0 and not usage.get("iterations"):
                self._troubles.add(f"usage.{name}", f"fell from {before} to 0: {before} counts")
            else:
                said[name] = value
        return True

    def _others_read(self, troubles: Troubles) -> tuple[Pass, ...]:
        found = []
        for kind, said in self._others.items():
            slots: Slots = {}
            walk(said, openai.FIELDS, f"{kind}.", slots, troubles)
            tokens = token_classes(slots, troubles)
            if tokens:
                found.append(Pass(kind, names.model_of(said.get("model"), troubles), tokens))
        return tuple(found)

    def _meters(self, slots: Slots) -> dict[str, int]:
        found = {meter: slots[meter] for meter in slots.keys() & s.METERS if slots[meter]}
        seen: Slots = {}
        for meter, _, _ in self._parts:
            seen[meter] = seen.get(meter, 0) + 1
        for meter, count in seen.items():
            found[meter] = max(count, found.get(meter, 0))
        return found

    def _outcome(self) -> Outcome:
        if self._failed:
            return Outcome.ERROR
        if self._unfinished or not (self.ended or self._finishes):
            return Outcome.ABORTED
        return Outcome.COMPLETE
