"""Meters that providers count and the catalog does not: they are left out, so that all else is counted."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from protocol.local_messages import Record, Settle

Said = TypeVar("Said", bound=Settle | Record)


def without_undeclared(said: Said, code: str, field: str | None) -> Said | None:
    """The same without the meter for which it was refused; ``None`` if that is not why."""
    meter = (field or "").removeprefix("amounts.")
    if code != "meter_not_found" or meter not in said.amounts:
        return None
    left = {name: amount for name, amount in said.amounts.items() if name != meter}
    return msgspec.structs.replace(said, amounts=left)
