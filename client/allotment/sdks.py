"""``allotment.meter(OpenAI(), customer=...)``: the official SDKs, metered by one line."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from allotment.asynchronous import AsyncClient
from allotment.attempts import TIMEOUT_S
from allotment.attribution import Attribution
from allotment.blocking import Client
from allotment.transports import AsyncMeteredTransport, Meter, MeteredTransport

T = TypeVar("T")

_KINDS = "a client of openai, anthropic or google.genai, or of httpx with provider=..."


def meter(
    client: T,
    *,
    customer: str | None = None,
    feature: str | None = None,
    user: str | None = None,
    workspace: str | None = None,
    role: str | None = None,
    api_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    provider: str | None = None,
    estimate: str = "slices",
    socket_path: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> T:
    """Meter the model calls of an SDK's client, from now on; use what is returned.

    Each attempt is admitted by the agent before it is sent, watched while it is answered, and counted once.

    Args:
        client: of OpenAI, Anthropic or Google genai, blocking or async; copies that it makes later
            (``with_options()``) are metered, too. Or an HTTP client (`httpx`, `httpx2`) that others will use, of
            which a metered one is returned. Metered again, the last word counts.
        customer, feature, user, workspace, role, api_key, tags: whose its calls are, where
            :func:`allotment.attributed` does not say otherwise.
        provider: under which calls are counted: ``openai``, ``anthropic`` or ``gemini`` after the SDK.
        estimate: what every call must find room for at least, whatever its limits say: ``slices``, its prompt and a
            slice of its answer at a time; ``p95``, what 95 of a hundred such answers do not pass; ``worst``, the most
            that it can use.
        socket_path, timeout_s: as of :class:`allotment.Client`.

    Raises:
        TypeError: it is no such client, or one that speaks in a way that cannot be metered.
        ValueError: ``estimate`` is none of these.
    """
    if estimate not in ("slices", "p95", "worst"):
        raise ValueError(f"estimate: is {estimate!r}; expected 'slices', 'p95' or 'worst'")
    labels = Attribution(customer, feature, user, workspace, role, api_key, dict(tags or {}))

    def metered(http: Any, family: str) -> Any:
        library = _library_of(http)
        how = Meter(library, family, provider or family, labels, estimate)
        return _metered(http, how, lambda kind: kind(socket_path, timeout_s=timeout_s))

    family = _family_of(client)
    sdk: Any = client
    if family == "gemini":
        _meter_genai(sdk, lambda http: metered(http, family))
    elif family is not None:
        sdk._client = metered(sdk._client, family)
    elif provider is not None:
        return metered(client, "openai")  # type: ignore[no-any-return]  # as most others speak
    else:
        raise TypeError(f"client: is a {type(client).__qualname__}; expected {_KINDS}")
    return client


def _family_of(client: object) -> str | None:
    for kind in type(client).__mro__:
        package = kind.__module__
        if kind.__name__ in ("SyncAPIClient", "AsyncAPIClient") and package.partition(".")[0] in (
            "openai",
            "anthropic",
        ):
            return package.partition(".")[0]
        if package == "google.genai.client" and kind.__name__ == "Client":
            return "gemini"
    return None


def _library_of(http: Any) -> ModuleType:
    for kind in type(http).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("httpx", "httpx2") and kind.__name__ in ("Client", "AsyncClient"):
            return sys.modules[package]
    raise TypeError(f"client: sends by a {type(http).__qualname__}; expected {_KINDS}")


def _meter_genai(sdk: Any, metered: Callable[[Any], Any]) -> None:
    api = sdk._api_client
    for uses in ("_use_google_auth_sync", "_use_google_auth_async"):
        if getattr(api, uses, bool)():
            raise TypeError("client: sends by google-auth, because of its client certificate; that cannot be metered")
    http, async_http = metered(api._httpx_client), metered(api._async_httpx_client)
    api._httpx_client, api._async_httpx_client = http, async_http
    api._use_aiohttp = bool  # as it does by itself for whoever gives it a transport


def _metered(http: Any, how: Meter, make_agent: Callable[[Any], Any]) -> Any:
    """A copy that sends by metered transports. The one given stays as it is, for whoever else uses it."""
    http = getattr(http, "_unmetered", http)
    waits = isinstance(http, how.library.AsyncClient)
    agent = make_agent(AsyncClient if waits else Client)
    around: Any = AsyncMeteredTransport if waits else MeteredTransport
    made = copy.copy(http)
    made.__class__ = type(f"Metered{type(http).__name__}", (type(http),), {"__del__": lambda _: None})
    made._unmetered = http  # which closes its connections when nobody needs it any longer
    made._transport = around(http._transport, agent, how)
    made._mounts = {pattern: one and around(one, agent, how) for pattern, one in http._mounts.items()}
    if getattr(http, "_per_loop", False):  # of genai: it makes a client of its own for each event loop
        make = http._inner_client_cls
        made._loop_clients = {}
        made._inner_client_cls = lambda **options: _metered(make(**options), how, make_agent)
    return made
