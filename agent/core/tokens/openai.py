"""OpenAI's usage, and that of all who speak its interface: Azure, OpenRouter, Groq, Mistral, DeepSeek, Hugging Face,
Cerebras, xAI, Perplexity, Moonshot, vLLM and other self-hosted servers.

Prompt counts include what came from a cache; completions include reasoning (xAI's and Perplexity's do not, which their
totals tell). Source: the types of OpenAI's own library, and recorded answers of the others.
"""

from __future__ import annotations

from agent.core.tokens import slots as s
from agent.core.tokens.slots import IGNORED, Fields

_CACHED_PARTS: Fields = {"audio_tokens": s.CACHED_AUDIO, "image_tokens": s.CACHED_IMAGE, "text_tokens": IGNORED}

_INPUT_PARTS: Fields = {
    "cached_tokens": s.CACHE_READ,
    "cache_read_tokens": s.CACHE_READ,
    "cache_read_input_tokens": s.CACHE_READ,
    "cached_tokens_details": _CACHED_PARTS,
    "cache_write_tokens": s.CACHE_WRITE,
    "cache_creation_tokens": s.CACHE_WRITE,
    "cache_write_tokens_details": {"ttl_30m_tokens": IGNORED, "ttl_12h_tokens": s.CACHE_WRITE_12H},
    "audio_tokens": s.INPUT_AUDIO,
    "image_tokens": s.INPUT_IMAGE,
    "text_tokens": IGNORED,
    "video_tokens": IGNORED,
}

_OUTPUT_PARTS: Fields = {
    "reasoning_tokens": s.REASONING,
    "audio_tokens": s.OUTPUT_AUDIO,
    "image_tokens": s.OUTPUT_IMAGE,
    "text_tokens": IGNORED,
    "accepted_prediction_tokens": IGNORED,
    "rejected_prediction_tokens": IGNORED,  # billed as output, and part of it
}

FIELDS: Fields = {
    "prompt_tokens": s.INPUT,
    "completion_tokens": s.OUTPUT,
    "input_tokens": s.INPUT,
    "output_tokens": s.OUTPUT,
    "total_tokens": s.TOTAL,
    "prompt_tokens_details": _INPUT_PARTS,
    "completion_tokens_details": _OUTPUT_PARTS,
    "input_tokens_details": _INPUT_PARTS,
    "output_tokens_details": _OUTPUT_PARTS,
    "input_token_details": _INPUT_PARTS,  # realtime and transcription
    "output_token_details": _OUTPUT_PARTS,
    "reasoning_tokens": s.REASONING,  # Perplexity, Databricks, SGLang
    "cached_tokens": s.CACHE_READ,  # Hugging Face, Moonshot
    "num_cached_tokens": s.CACHE_READ,  # Mistral
    "prompt_cache_hit_tokens": s.CACHE_READ,  # DeepSeek
    "prompt_cache_miss_tokens": s.MISSED,
    "cached_prompt_text_tokens": s.CACHE_READ,  # xAI, older
    "cache_read_input_tokens": s.CACHE_READ,  # Databricks, LiteLLM: beside prompt_tokens, and part of them
    "cache_creation_input_tokens": s.CACHE_WRITE,
    "citation_tokens": s.BESIDE_OUTPUT,  # Perplexity
    "num_search_queries": s.WEB_SEARCHES,
    "num_sources_used": s.SEARCH_UNITS,  # xAI
    "server_tool_use": {"web_search_requests": s.WEB_SEARCHES},  # OpenRouter
    "server_tool_use_details": {
        "web_search_requests": s.WEB_SEARCHES,
        "tool_calls_executed": IGNORED,
        "tool_calls_requested": IGNORED,
    },
    "seconds": s.seconds,  # transcription by time
    "prompt_audio_seconds": s.seconds,  # Mistral
    "billable_audio_seconds": s.seconds,  # xAI
    "pages_processed": s.PAGES,  # Mistral, reading documents
    "tool_usage": {"web_search": {"num_requests": s.WEB_SEARCHES}, "image_gen": IGNORED},  # images: another model's
    "request_counts": {"completed": "requests", "failed": IGNORED, "total": IGNORED},  # a batch
    "type": IGNORED,
    "model": IGNORED,
    "service_tier": IGNORED,
    "cost": IGNORED,
    "cost_details": dict.fromkeys(
        ("upstream_inference_cost", "upstream_inference_prompt_cost", "upstream_inference_completions_cost",
         "upstream_inference_input_cost", "upstream_inference_output_cost"), IGNORED
    ),
    "is_byok": IGNORED,
    "cost_in_usd_ticks": IGNORED,
    "doc_size_bytes": IGNORED,
    "queue_time": IGNORED,  # Groq
    "prompt_time": IGNORED,
    "completion_time": IGNORED,
    "total_time": IGNORED,
}  # fmt: skip
