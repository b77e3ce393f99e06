"""The calls that every contender is asked to decide: in frames for the agent and the echo, in RESP for Redis."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from protocol.codec import encode_msgpack
from protocol.events import Subject
from protocol.framing import frame
from protocol.local_messages import Call, Check, Release, Request, Reserve, Settle

CUSTOMERS = 32
FEATURE = "chat"
METERS = ("requests", "input_tokens", "output_tokens")
HELD = (1, 900, 1_200)
USED = (1, 900, 400)

_ID = 0x7FFFFFFF  # encoded as ce 7f ff ff ff: room for any slot number
_HEX = "0" * 10
_NONE = 0xFFFFFFFF
_RESERVATION_MS = 600_000


@dataclass(frozen=True)
class Step:
    """One request of a call as bytes, and a text that every right answer to it contains (empty: any answer will do)."""

    request: bytes
    expected: bytes


def customer(number: int) -> str:
    """Names of the customers that the calls are spread over."""
    return f"bench-{number:03d}"


def agent_calls(run: str, *, operations: tuple[str, ...], checked: bool = True) -> list[list[Step]]:
    """Calls in the agent's frames: ``("reserve", "settle")``, ``("reserve", "release")`` or ``("check",)``.

    Args:
        run: distinguishes the reservations of this run from those of any other.
        operations: the steps of each call.
        checked: False for the echo server, whose answers say nothing.
    """
    return [[_agent_step(run, customer(n), one, checked) for one in operations] for n in range(CUSTOMERS)]


def _agent_step(run: str, who: str, operation: str, checked: bool) -> Step:
    reservation = f"{run}-{_HEX}"
    held, used = dict(zip(METERS, HELD, strict=True)), dict(zip(METERS, USED, strict=True))
    call = Call(customer=who, feature=FEATURE, subject=Subject(user="user-1"))
    request: Request
    match operation:
        case "check":
            request, expected = Check(id=_ID, call=call, amounts=held), b"\xa5allow"
        case "reserve":
            request, expected = Reserve(id=_ID, reservation=reservation, call=call, amounts=held), b"\xa5allow"
        case "settle":
            request, expected = Settle(id=_ID, reservation=reservation, amounts=used), b"\xa8recorded"
        case "release":
            request, expected = Release(id=_ID, reservation=reservation), b"\xa8recorded"
        case _:
            raise ValueError(operation)
    return Step(frame(encode_msgpack(request)), expected if checked else b"")


def redis_keys(run: str, who: str) -> list[str]:
    """The keys that a script touches: three counters of one customer and the reservation."""
    return [f"left:{who}:{meter}" for meter in METERS] + [f"reservation:{run}-{_HEX}"]


def redis_calls(run: str, reserve: str, settle: str) -> list[list[Step]]:
    """The same calls as EVALSHA; ``reserve`` and ``settle`` are the digests of the two loaded scripts."""
    calls = []
    for number in range(CUSTOMERS):
        keys = redis_keys(run, customer(number))
        held = [*map(str, HELD), str(_RESERVATION_MS)]
        used = [*map(str, USED)]
        calls.append([Step(_resp("EVALSHA", digest, "4", *keys, *amounts), b":1") for digest, amounts in
                      ((reserve, held), (settle, used))])  # fmt: skip
    return calls


def _resp(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


def write(path: Path, calls: list[list[Step]], *, resp: bool) -> None:
    """Write the calls in the form that ``load.c`` reads."""
    parts = [struct.pack(">III", resp, len(calls[0]), len(calls))]
    for step in (step for call in calls for step in call):
        id_at = _NONE if resp else step.request.find(b"\xa2id\xce\x7f\xff\xff\xff")
        id_at = id_at if id_at in {_NONE, -1} else id_at + 4
        reservation_at = step.request.find(_HEX.encode())
        head = (len(step.request), id_at if id_at >= 0 else _NONE, reservation_at, len(step.expected))
        parts += [struct.pack(">IIII", *(n if n >= 0 else _NONE for n in head)), step.request, step.expected]
    path.write_bytes(b"".join(parts))
