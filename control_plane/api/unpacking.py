"""Bodies that come compressed: unpacked, and never to more than is taken plain."""

from __future__ import annotations

import zlib

from litestar.exceptions import HTTPException

from protocol.violations import Violation


def check_encoding(encoding: str) -> None:
    """Raises: HTTPException: 415: nothing that :func:`unpacked` unpacks."""
    if encoding.strip().lower() not in {"", "identity", "gzip"}:
        raise HTTPException(status_code=415, detail="This path takes bodies plain, or with content-encoding gzip.")


def unpacked(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its compression. Raises: Violation: it is broken, or larger than that."""
    if encoding.strip().lower() != "gzip":
        return body
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error:
        raise Violation("", "is not gzip", "what content-encoding says") from None
    if len(plain) > bytes_max:
        raise Violation("", f"unpacks to more than {bytes_max} bytes", "less in one request")
    if not unpacker.eof or unpacker.unused_data:
        raise Violation("", "is not one whole gzip stream", "what content-encoding says")
    return plain
