"""An agent with its metering proxy in front of a provider that plays recorded answers, as tests use it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import openai

from tests.faults.programs import Agent, a_free_port
from tests.faults.provider import Provider


class Closable(Protocol):
    def close(self) -> None: ...


Client = TypeVar("Client", bound=Closable)


@dataclass
class Proxied:
    """An agent with a proxy, its provider, and one customer's calls through both."""

    agent: Any
    plane: Any
    provider: Provider
    port: int
    customer: str = ""
    until: Callable[..., Any] = field(default=lambda *_: None)
    clients: list[Closable] = field(default_factory=list)

    def url(self, provider: str) -> str:
        return f"http://127.0.0.1:{self.port}/{provider}"

    def headers(self, **play: Any) -> dict[str, str]:
        return {
            "x-allotment-customer": self.customer,
            "x-allotment-feature": "chat",
            "x-allotment-user": "ann",
            "x-allotment-tags": "team=red",
            "x-play": json.dumps(play),
        }

    def openai(self, **play: Any) -> openai.OpenAI:
        headers, url = self.headers(**play), self.url("openai") + "/v1"
        return self.kept(openai.OpenAI(api_key="sk-test", base_url=url, default_headers=headers, max_retries=0))

    def kept(self, client: Client) -> Client:
        """Closed at the end, whatever becomes of its calls."""
        self.clients.append(client)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def events(self, count: int = 1) -> list[dict[str, Any]]:
        """The customer's events, once there are so many."""

        def found() -> list[dict[str, Any]] | None:
            events: list[dict[str, Any]] = self.plane.events(self.customer)
            return events if len(events) >= count else None

        events: list[dict[str, Any]] = self.until(f"{count} events", found)
        assert len(events) == count
        return [{"usage_source": "provider", "outcome": "complete", **event["usage"]} for event in events]

    def in_flight(self) -> int:
        return int(self.agent.status().reservations)

    def nothing_is_left(self) -> None:
        self.until("nothing is held any longer", lambda: self.in_flight() == 0)
        self.agent.uploaded()
        assert self.plane.events(self.customer) == []


@contextmanager
def an_agent_with_a_proxy(run: Any, plane: Any, provider: Provider, **more: str) -> Iterator[tuple[Any, int]]:
    """It runs until it is left, and the port of its proxy; ``more``: of its environment."""
    port = a_free_port()
    upstreams = [f"{name}={provider.url}" for name in ("openai", "anthropic", "gemini")] + ["nobody=http://127.0.0.1:9"]
    environment = {"ALLOTMENT_PROXY_PORT": str(port), "ALLOTMENT_PROXY_UPSTREAMS": ",".join(upstreams), **more}
    number = secrets.token_hex(3)
    agent = Agent(run.root / number, plane, f"agent-{number}", more=environment)
    run.agents.append(agent)
    yield agent.start(), port
    agent.kill()
