"""From slots to disjoint token classes, which sum to what the provider says in all.

Providers differ in what includes what: prompt counts of OpenAI and Gemini include what came from a cache, those of
Anthropic and Bedrock do not; completions of OpenAI include reasoning, candidates of Gemini and completions of xAI do
not. The family's table says so by its slots; where a total tells another story, the total is believed.
"""

from __future__ import annotations

from agent.core.tokens import slots as s
from agent.core.tokens.slots import Slots
from agent.core.tokens.usage import Troubles


def token_classes(slots: Slots, troubles: Troubles) -> dict[str, int]:
    """The classes that these slots come to; those without tokens are left out."""
    get = slots.get
    total = get(s.TOTAL)
    reasoning = get(s.REASONING, 0)
    outputs = _outputs(slots, reasoning)
    read, write = get(s.CACHE_READ, 0), get(s.CACHE_WRITE, 0)
    inputs = _inputs(slots, outputs, read + write)
    if read + write > inputs:
        troubles.add("usage", f"has {read + write} cached of {inputs} input tokens: counted beside them")
        inputs += read + write
    if total is not None and total != inputs + outputs:
        gap = total - inputs - outputs
        if gap < 0 and s.BESIDE_OUTPUT not in slots:  # which Perplexity's total leaves out
            troubles.add("usage", f"has a total of {total}, less than its parts: the parts count")
        elif gap > 0 and (s.OUTPUT in slots or s.ANSWER in slots):
            if gap != get(s.REASONING):
                # Gemini behind OpenAI's interface leaves its thoughts out of everything but the total.
                troubles.add("usage", f"has {gap} tokens in its total alone: counted as reasoning")
                reasoning += gap
            outputs += gap
        elif gap > 0:
            troubles.add("usage", f"has {gap} tokens in its total alone: counted as input")
            inputs += gap
    fresh_audio = fresh_image = 0
    if not _MEDIA.isdisjoint(slots):
        fresh_audio, fresh_image = _fresh_media(slots, inputs - read - write, troubles)
    reasoning, audio, image = _fitted(
        outputs, (reasoning, get(s.OUTPUT_AUDIO, 0), get(s.OUTPUT_IMAGE, 0)), "output", troubles
    )
    found = {
        "input": inputs - read - write - fresh_audio - fresh_image,
        "cache_read": read,
        "cache_write": write,
        "input_audio": fresh_audio,
        "input_image": fresh_image,
        "output": outputs - reasoning - audio - image,
        "reasoning": reasoning,
        "output_audio": audio,
        "output_image": image,
    }
    return {name: count for name, count in found.items() if count}


_MEDIA = frozenset({s.INPUT_AUDIO, s.INPUT_IMAGE, s.TOOL_AUDIO, s.TOOL_IMAGE})


def _inputs(slots: Slots, outputs: int, cached: int) -> int:
    """All input tokens. Where nobody says how many, what the total leaves: embeddings and rerankers say no more."""
    if s.FRESH in slots:
        return slots[s.FRESH] + cached
    if s.INPUT in slots:
        return slots[s.INPUT] + slots.get(s.TOOL_PROMPT, 0)
    if s.MISSED in slots:
        return slots[s.MISSED] + cached
    return max(slots.get(s.TOTAL, 0) - outputs, cached)


def _outputs(slots: Slots, reasoning: int) -> int:
    """All output tokens. Reasoning beyond what was put out in all cannot be part of it, nor Perplexity's."""
    beside = slots.get(s.BESIDE_OUTPUT, 0)
    if s.OUTPUT not in slots:
        return slots.get(s.ANSWER, 0) + reasoning + beside
    outputs = slots[s.OUTPUT] + beside
    return outputs + reasoning if reasoning > outputs or s.BESIDE_OUTPUT in slots else outputs


def _fresh_media(slots: Slots, fresh: int, troubles: Troubles) -> tuple[int, int]:
    """Audio and image tokens among the ``fresh`` input tokens, which came from no cache."""
    get = slots.get
    audio = max(0, get(s.INPUT_AUDIO, 0) + get(s.TOOL_AUDIO, 0) - get(s.CACHED_AUDIO, 0))
    image = max(0, get(s.INPUT_IMAGE, 0) + get(s.TOOL_IMAGE, 0) - get(s.CACHED_IMAGE, 0))
    if audio + image > fresh and s.CACHED_AUDIO not in slots and s.CACHED_IMAGE not in slots and get(s.CACHE_READ):
        # Which of them came from the cache is not said: text is taken to be cached first, then audio.
        image = min(image, fresh)
        audio = min(audio, fresh - image)
    audio, image = _fitted(fresh, (audio, image), "input", troubles)
    return audio, image


def _fitted(whole: int, parts: tuple[int, ...], name: str, troubles: Troubles) -> tuple[int, ...]:
    """Parts of a whole that are no more than it."""
    if sum(parts) <= whole:
        return parts
    troubles.add("usage", f"has parts of {sum(parts)} in {whole} {name} tokens: the parts were cut")
    fitted = []
    for part in parts:
        fitted.append(min(part, whole))
        whole -= fitted[-1]
    return tuple(fitted)
