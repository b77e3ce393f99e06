"""Model calls by metered SDKs, told apart in the ledger by their users: first all are made, then the ledger is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
from google import genai

import allotment
from tests.faults.programs import NO_TLS, Agent, ControlPlane
from tests.faults.provider import Provider, Seen

MESSAGES = [{"role": "user", "content": "What is the capital of the UK?"}]


@dataclass
class Told:
    """What came of one story: what it gave back or raised, its events in the ledger, what the provider saw."""

    result: Any = None
    error: Exception | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    @property
    def event(self) -> dict[str, Any]:
        (event,) = self.events
        return event

    def counted(self) -> tuple[int, int, str, str]:
        """Input, output, where the numbers come from, how it ended."""
        amounts = self.event["amounts"]
        return (
            amounts["input_tokens"], amounts["output_tokens"], self.event["usage_source"], self.event["outcome"],
        )  # fmt: skip


@dataclass
class Stage:
    """An agent, a provider, and one customer whose calls are metered."""

    agent: Agent
    plane: ControlPlane
    provider: Provider
    customer: str
    story: str = ""

    def play(self, **play: Any) -> dict[str, str]:
        return {"x-play": json.dumps(play)}

    def metered(self, client: Any, **labels: Any) -> Any:
        labels = {"customer": self.customer, "feature": "chat", "user": self.story, **labels}
        return allotment.meter(client, socket_path=str(self.agent.frames), **labels)

    def sdk(self, kind: Any = openai.OpenAI, play: dict[str, Any] | None = None, **options: Any) -> Any:
        """A client of an SDK, not yet metered."""
        play = play or {}
        if kind is genai.Client:
            return genai.Client(api_key="k", http_options={"base_url": self.provider.url, "headers": self.play(**play)})
        version = "" if kind in (anthropic.Anthropic, anthropic.AsyncAnthropic) else "/v1"
        if "http_client" not in options:  # one that does not read the authorities which plain HTTP does not need
            waits = kind.__name__.startswith("Async")
            make = openai.DefaultAsyncHttpxClient if waits else openai.DefaultHttpxClient
            options["http_client"] = make(verify=NO_TLS)
        return kind(
            **{"api_key": "k", "base_url": self.provider.url + version, "max_retries": 0, **options},
            default_headers=self.play(**play),
        )

    def client(self, kind: Any = openai.OpenAI, *, labels: dict[str, Any] | None = None, **play: Any) -> Any:
        return self.metered(self.sdk(kind, play), **(labels or {}))

    def tell(self, name: str, story: Callable[[Stage], Any]) -> Told:
        self.story = name
        before = len(self.provider.seen)
        told = Told()
        try:
            told.result = story(self)
        except Exception as error:  # noqa: BLE001 - what it is, is looked at later
            told.error = error
        told.seen = self.provider.seen[before:]
        return told

    def read_ledger(self, told: dict[str, Told], until: Callable[..., Any], counts: dict[str, int]) -> None:
        """Give every story its events, once there are as many as there should be (one, unless said)."""
        wanted = sum(counts.get(name, 1) for name in told)

        def found() -> list[dict[str, Any]] | None:
            events: list[dict[str, Any]] = self.plane.events(self.customer)
            return events if len(events) >= wanted else None

        until(f"{wanted} events", found)
        self.agent.uploaded()
        for event in self.plane.events(self.customer):
            usage = {"usage_source": "provider", "outcome": "complete", **event["usage"]}
            told[usage["subject"]["user"]].events.append(usage)
        for name, one in told.items():
            assert len(one.events) == counts.get(name, 1), (name, one.events)


def create(client: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options)
