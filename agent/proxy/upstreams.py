"""Where calls go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agent.core.paths import answers_in_tokens
from protocol.violations import Violation

DEFAULT_URLS = {
    "openai": "https://api.openai.com",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
"""Providers by the first part of a path: ``/openai/v1/chat/completions`` goes on as ``/v1/chat/completions``."""

_SERVED_IN_CHUNKS = ("/chat/completions", "/completions")


class Target(NamedTuple):
    """Where one call goes.

    Attributes:
        provider: the name under which it is counted.
        url: the whole address. path: without the host, for reading the model and the kind of call.
    """

    provider: str
    url: str
    path: str

    @property
    def answers_in_tokens(self) -> bool:
        """Whether the answer is made of output tokens: what is embedded or transcribed, for one, is not."""
        return answers_in_tokens(self.path)

    @property
    def says_usage_if_asked(self) -> bool:
        """Whether streams of it say what they used only if the request asks (``stream_options.include_usage``)."""
        return self.provider not in ("anthropic", "gemini") and self.path.partition("?")[0].endswith(_SERVED_IN_CHUNKS)


def target_of(path: str, urls: Mapping[str, str]) -> Target:
    """Where a request goes, by the first part of its path.

    Raises: Violation: no provider is called so here.
    """
    name, slash, rest = path.removeprefix("/").partition("/")
    if name not in urls or not slash:
        expected = "one of " + ", ".join(f"/{known}/..." for known in sorted(urls))
        raise Violation("", f"{ascii(path)[:80]} leads nowhere", expected, code="route_not_found")
    return Target(name, f"{urls[name].rstrip('/')}/{rest}", f"/{rest}")
