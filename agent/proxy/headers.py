"""Which headers belong to one connection and which to the call. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from agent.core.attribution import PREFIX

Headers = list[tuple[bytes, bytes]]

_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"expect",
})  # fmt: skip
_OURS_TO_SAY = frozenset({b"host", b"content-length", b"accept-encoding"})


def of_request(headers: Iterable[tuple[bytes, bytes]], host: bytes, body_bytes: int | None) -> Headers:
    """What is said to the provider: all that belongs to the call. Answers are asked for uncompressed, to be read."""
    kept = _end_to_end(headers)
    found = [(b"host", host), *((n, v) for n, v in kept if n not in _OURS_TO_SAY and not n.startswith(PREFIX))]
    found.append((b"accept-encoding", b"identity"))
    return found if body_bytes is None else [*found, (b"content-length", b"%d" % body_bytes)]


def of_answer(headers: Iterable[tuple[bytes, bytes]], ours: Headers, *, shortened: bool) -> Headers:
    """What is said to the caller: what the provider said, and ours.

    Args:
        shortened: something of the body may be taken out, so that its length is not known.
    """
    mine = {name for name, _ in ours}
    # Either all of these are the provider's, or all are ours: nobody could tell whose limit one of them is.
    instead = b"x-ratelimit-" if any(name.startswith(b"x-ratelimit-") for name in mine) else None
    kept = [
        (name, value)
        for name, value in _end_to_end(headers)
        if name not in mine
        and not (shortened and name == b"content-length")
        and not (instead and name.startswith(instead))
    ]
    return kept + ours


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    lowered = [(name.lower(), value) for name, value in headers]
    named = {one.strip().lower() for name, value in lowered if name == b"connection" for one in value.split(b",")}
    return [(name, value) for name, value in lowered if name not in _HOP and name not in named]
