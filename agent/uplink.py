"""Speaks HTTPS to the control plane: enrol, sync, watch. Turns what goes wrong into three kinds of fault."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

import httpx
import msgspec
import trio

from protocol.codec import JsonDecoder, MsgpackDecoder, encode_json, encode_msgpack
from protocol.uplink_messages import (
    ENROLL_PATH,
    MSGPACK,
    SYNC_PATH,
    WATCH_PATH,
    WATCH_WAIT_MS_MAX,
    EnrollReply,
    EnrollRequest,
    SyncReply,
    SyncRequest,
    WatchReply,
)
from protocol.violations import Violation

T = TypeVar("T")

SYNC_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
TRANSFER_S = 45.0
"""Beyond the wait for the next bytes, what a whole answer may take: one that drips is not waited for for ever."""
RETRY_AFTER_S_MAX = 60
REPLY_BYTES_MAX = 32 * 1024 * 1024

REFUSALS = frozenset({"unauthenticated", "forbidden"})

_sync_reply = MsgpackDecoder(SyncReply)
_watch_reply = MsgpackDecoder(WatchReply)
_enroll_reply = JsonDecoder(EnrollReply)


class UplinkDownError(Exception):
    """The control plane cannot be reached, or is not able to answer now: try again later.

    Attributes:
        retry_after_s: when it asked us to come again; 0 if it did not say.
    """

    retry_after_s = 0.0


class SnapshotRequiredError(UplinkDownError):
    """The control plane does not know this start (any more): the next try must introduce it."""


class UplinkRefusedError(Exception):
    """The control plane itself does not accept us: the token is unknown, expired or revoked.

    The same status from something on the way says nothing of the kind, and is ``UplinkDownError``.
    """


class QuarantinedError(Exception):
    """The control plane knows that this journal is a copy or was rolled back: it must never be used again."""


class Uplink:
    """One agent's line to its control plane. Close it by leaving its ``async with`` block."""

    def __init__(self, url: str, ca_file: Path | None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        # A transport alone: of what a client adds - redirects, cookies, proxies - nothing is wanted here.
        self._transport = transport or httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context(trust_env=False)
        )
        self.token: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def enroll(self, request: EnrollRequest) -> EnrollReply:
        """Trade the join token for an identity."""
        body = await self._send("POST", ENROLL_PATH, encode_json(request), {"content-type": "application/json"})
        return _read(_enroll_reply, body)

    async def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Safe to repeat with the same or a newer request."""
        body = await self._send("POST", SYNC_PATH, encode_msgpack(request), {"content-type": MSGPACK})
        return _read(_sync_reply, body)

    async def watch(self, cursor: int) -> WatchReply:
        """Wait until something may have changed since ``cursor``, or for a while."""
        path = f"{WATCH_PATH}?cursor={cursor}&wait_ms={WATCH_WAIT_MS_MAX}&entitlements=true"
        return _read(_watch_reply, await self._send("GET", path, None, {}, WATCH_WAIT_MS_MAX / 1_000 + SYNC_TIMEOUT_S))

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        wait_s: float = SYNC_TIMEOUT_S,
    ) -> bytes:
        headers = {**headers, "user-agent": "allotment-agent"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        timeouts = httpx.Timeout(wait_s, connect=CONNECT_TIMEOUT_S).as_dict()
        request = httpx.Request(
            method, self._url + path, content=body, headers=headers, extensions={"timeout": timeouts}
        )
        try:
            with trio.fail_after(wait_s + TRANSFER_S):
                answer = await self._transport.handle_async_request(request)
                try:
                    return await _body_of(answer)
                finally:
                    await answer.aclose()
        except trio.TooSlowError:
            raise UplinkDownError("the answer came too slowly to be waited for") from None
        except httpx.HTTPError as error:
            raise UplinkDownError(f"{type(error).__name__}: {_reason(error)}".removesuffix(": ")) from error


def _reason(error: BaseException) -> str:
    """What went wrong in the end: a certificate that is not trusted is some causes down."""
    while not str(error) and (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return str(error)


async def _body_of(answer: httpx.Response) -> bytes:
    """The body of a good answer.

    Raises:
        UplinkDownError, UplinkRefusedError, QuarantinedError: by what the control plane said instead.
    """
    parts = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes, None]", answer.aiter_bytes())) as arriving:
        async for part in arriving:
            parts += part
            if len(parts) > REPLY_BYTES_MAX:
                raise UplinkDownError(f"the answer is larger than {REPLY_BYTES_MAX} bytes")
    if answer.status_code < 300:
        return bytes(parts)
    code, detail = _problem(bytes(parts))
    said = f"{answer.status_code} {code or answer.reason_phrase}: {detail}" if detail else f"{answer.status_code}"
    if answer.status_code in (401, 403) and code in REFUSALS:
        raise UplinkRefusedError(said)
    if code == "snapshot_required":
        raise SnapshotRequiredError(said)
    if answer.status_code == 409 and code == "journal_quarantined":
        raise QuarantinedError(said)
    busy = UplinkDownError(said)
    busy.retry_after_s = _retry_after_s(answer)
    raise busy


def pause_s(error: Exception) -> float | bool:
    """How long to pause after a failure: as long as the control plane asks for and up to as long again, so that those
    that were told the same do not come back together.

    Returns: ``True`` when it asks for nothing, ``False`` when it is no passing failure.
    """
    if not isinstance(error, UplinkDownError):
        return False
    return error.retry_after_s * random.uniform(1, 2) if error.retry_after_s else True  # noqa: S311 - not a secret


def _retry_after_s(answer: httpx.Response) -> float:
    said = answer.headers.get("retry-after", "")
    return float(min(int(said), RETRY_AFTER_S_MAX)) if said.isascii() and said.isdigit() and len(said) < 6 else 0.0


def _problem(body: bytes) -> tuple[str, str]:
    """Code and detail of problem details, as far as there are any."""
    try:
        said = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    return str(said.get("code", ""))[:100], str(said.get("detail", ""))[:500]


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except Violation as wrong:
        raise UplinkDownError(f"the answer cannot be read: {wrong}") from wrong
