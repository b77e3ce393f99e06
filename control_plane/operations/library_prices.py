"""What a maintained library (genai-prices) knows of the prices of models: read from its wheel, without the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from typing import Any, NamedTuple

from control_plane.core.price_books import BASES, ModelPrice, within
from protocol.ids import is_model_name

CURRENCY = "USD"
FIRST_HAND = (
    "openai", "anthropic", "google", "mistral", "cohere", "x-ai", "deepseek", "moonshotai", "minimax", "zai", "meta",
    "perplexity", "voyageai",
)  # fmt: skip
"""Whose price a model has that is named without a provider: that of the first of these that sells it."""

_CLASSES = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "input_audio_mtok": "input_audio",
    "input_image_mtok": "input_image",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "output_audio",
    "output_image_mtok": "output_image",
}
_THOUSANDS = {"requests_kcount": "requests"}


class LibraryPrices(NamedTuple):
    """What it says as of an instant.

    Attributes:
        tiered: models that cost more where the prompt is long. Their price here is that of short prompts, or of the
            longest.
        left_out: models that are not sold by the token or request, or whose names cannot be ours.
    """

    source: str
    prices: tuple[ModelPrice, ...]
    tiered: tuple[str, ...]
    left_out: tuple[str, ...]


def library_prices(now_ms: int, *, long_prompts: bool = False) -> LibraryPrices:
    """Every price that holds now: as ``provider/model``, and for those who made the model also as ``model``.

    Args:
        long_prompts: where a price has tiers, take that of the longest prompts, which never charges too little.
    """
    from genai_prices.data import providers  # its types take a third of a second to import: only where they are needed

    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    found: dict[str, ModelPrice] = {}
    tiered: set[str] = set()
    left_out: list[str] = []
    by_rank = sorted(providers, key=lambda provider: (_rank(provider.id), provider.id))
    for provider in by_rank:
        for model in provider.models:
            raw = {name: at_ for name, at_ in vars(model.get_prices(at, None)).items() if at_ is not None}
            whole = f"{provider.id}/{model.id}"
            tokens, meters = _tokens(raw, long_prompts), _meters(raw)
            if not is_model_name(whole) or not (tokens or meters):
                left_out.append(whole)
                continue
            for name in (whole, model.id) if provider.id in FIRST_HAND else (whole,):
                known = found.setdefault(name.lower(), ModelPrice(name.lower(), tokens, meters))  # type: ignore[arg-type]
                if known.tokens is tokens and any(hasattr(price, "tiers") for price in raw.values()):
                    tiered.add(name.lower())
    source = f"genai-prices {version('genai-prices')}"
    return LibraryPrices(source, tuple(found[name] for name in sorted(found)), tuple(sorted(tiered)), tuple(left_out))


def _rank(provider: str) -> int:
    return FIRST_HAND.index(provider) if provider in FIRST_HAND else len(FIRST_HAND)


def _tokens(raw: Mapping[str, Any], long_prompts: bool) -> dict[str, int]:
    tokens = {ours: _micros(raw[theirs], 1, long_prompts) for theirs, ours in _CLASSES.items() if theirs in raw}
    for base, classes in BASES.values():
        if base not in tokens and (named := [tokens[name] for name in classes if name in tokens]):
            tokens[base] = max(named)  # sold by audio or images alone: no other class is free
    return tokens


def _meters(raw: Mapping[str, Any]) -> dict[str, int]:
    return {ours: _micros(raw[theirs], 1_000, False) for theirs, ours in _THOUSANDS.items() if theirs in raw}


def _micros(price: Any, times: int, long_prompts: bool) -> int:
    """Whole micro-units for a million units, rounded up."""
    return within(int((max(_tiers(price, long_prompts)) * times * 1_000_000).to_integral_value(ROUND_CEILING)))


def _tiers(price: Any, long_prompts: bool) -> Iterator[Decimal]:
    if not hasattr(price, "tiers"):
        yield price
        return
    yield price.base
    if long_prompts:
        yield from (tier.price for tier in price.tiers)
