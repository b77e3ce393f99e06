"""What an operator may set, read from the environment once, with errors that name the variable."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from protocol.admission import Estimate
from protocol.ids import KEY_WORDS, is_key
from protocol.violations import Violation


@dataclass(frozen=True)
class ProxySettings:
    """The metering proxy of one agent.

    Attributes:
        port: where it listens, on loopback.
        urls: providers by the first part of a path, beside those that are known.
        keys_file: whose each API key is; ``None``: headers say whose a call is.
        feature: what calls are of that do not say; ``None``: they must.
        estimate: what every call must find room for at least, whatever its limits say.
        vendor_headers: tell limits in OpenAI's headers, too, in place of the provider's.
    """

    port: int
    urls: Mapping[str, str]
    keys_file: Path | None = None
    feature: str | None = None
    estimate: Estimate = Estimate.SLICES
    vendor_headers: bool = False


@dataclass(frozen=True)
class Settings:
    """One agent's configuration.

    Attributes:
        control_plane_url: where the control plane answers, ``https://...``.
        join_token: what a new agent trades for its own identity; not needed once it is enrolled.
        data_dir: journal and identity; mode 0700; one agent at a time.
        socket_dir: where ``agent.sock`` (frames) and ``http.sock`` (HTTP) appear; mount the directory, not the files.
        http_port: also serve HTTP on this loopback port.
        connections_max: open connections on all doors together.
        proxy: the metering proxy, if there is to be one.
    """

    control_plane_url: str
    agent_name: str
    data_dir: Path
    socket_dir: Path
    join_token: str | None = None
    http_port: int | None = None
    socket_mode: int = 0o660
    ca_file: Path | None = None
    connections_max: int = 16_000
    proxy: ProxySettings | None = None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read ``ALLOTMENT_*``.

    Raises:
        Violation: a variable is missing or wrong; the message says what would be right.
    """
    url = environment.get("ALLOTMENT_CONTROL_PLANE_URL", "")
    if not _is_url(url):
        raise Violation("ALLOTMENT_CONTROL_PLANE_URL", f"is {url!r}", "an URL such as https://allotment.example:8080")
    name = environment.get("ALLOTMENT_AGENT_NAME") or socket.gethostname()
    if not is_key(name):
        raise Violation("ALLOTMENT_AGENT_NAME", f"is {name!r}", KEY_WORDS)
    ca_file = environment.get("ALLOTMENT_CA_FILE")
    if ca_file and not os.access(ca_file, os.R_OK):
        raise Violation("ALLOTMENT_CA_FILE", f"is {ca_file!r}, which cannot be read", "a readable file")
    return Settings(
        control_plane_url=url.rstrip("/"),
        agent_name=name,
        data_dir=Path(environment.get("ALLOTMENT_DATA_DIR") or "/var/lib/allotment"),
        socket_dir=Path(environment.get("ALLOTMENT_SOCKET_DIR") or "/run/allotment"),
        join_token=_join_token(environment),
        http_port=_number(environment, "ALLOTMENT_HTTP_PORT", 10, 1, 65_535),
        socket_mode=_number(environment, "ALLOTMENT_SOCKET_MODE", 8, 1, 0o777) or 0o660,
        ca_file=Path(ca_file) if ca_file else None,
        connections_max=_number(environment, "ALLOTMENT_CONNECTIONS_MAX", 10, 1, 100_000) or 16_000,
        proxy=_proxy(environment),
    )


def _proxy(environment: Mapping[str, str]) -> ProxySettings | None:
    port = _number(environment, "ALLOTMENT_PROXY_PORT", 10, 1, 65_535)
    if port is None:
        return None
    urls: dict[str, str] = {}
    for part in filter(None, (environment.get("ALLOTMENT_PROXY_UPSTREAMS") or "").split(",")):
        name, _, url = part.strip().partition("=")
        if not is_key(name) or not _is_url(url):
            expected = "a list such as openai=https://api.openai.com,local=http://127.0.0.1:8000"
            raise Violation("ALLOTMENT_PROXY_UPSTREAMS", f"has {part.strip()!r}", expected)
        urls[name] = url
    keys = environment.get("ALLOTMENT_PROXY_KEYS_FILE")
    if keys and not os.access(keys, os.R_OK):
        raise Violation("ALLOTMENT_PROXY_KEYS_FILE", f"is {keys!r}, which cannot be read", "a readable file")
    feature = environment.get("ALLOTMENT_PROXY_FEATURE") or None
    if feature is not None and not is_key(feature):
        raise Violation("ALLOTMENT_PROXY_FEATURE", f"is {feature!r}", KEY_WORDS)
    estimate = environment.get("ALLOTMENT_PROXY_ESTIMATE") or Estimate.SLICES
    if estimate not in list(Estimate):
        raise Violation("ALLOTMENT_PROXY_ESTIMATE", f"is {estimate!r}", "slices, p95 or worst")
    told = environment.get("ALLOTMENT_PROXY_RATELIMIT") or "standard"
    if told not in ("standard", "vendor"):
        raise Violation("ALLOTMENT_PROXY_RATELIMIT", f"is {told!r}", "standard or vendor")
    return ProxySettings(port, urls, Path(keys) if keys else None, feature, Estimate(estimate), told == "vendor")


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


def _join_token(environment: Mapping[str, str]) -> str | None:
    path = environment.get("ALLOTMENT_JOIN_TOKEN_FILE")
    if not path:
        return environment.get("ALLOTMENT_JOIN_TOKEN") or None
    try:
        return Path(path).read_text().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise Violation("ALLOTMENT_JOIN_TOKEN_FILE", f"cannot be read: {error}", "a readable file") from None


def _number(environment: Mapping[str, str], name: str, base: int, least: int, most: int) -> int | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not least <= value <= most:
        kind, bounds = (
            ("an octal number", f"{least:o} to {most:o}") if base == 8 else ("a whole number", f"{least} to {most}")
        )
        raise Violation(name, f"is {text!r}", f"{kind}, {bounds}")
    return value
