"""Who is speaking: a start of an agent on one journal. Copied and old disks are told from late messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Standing(StrEnum):
    """What a request's incarnation is.

    ``late``: said by a start that has since been followed by another; true, but nobody waits for the answer.
    ``refused``: a lower boot that was never heard of: perhaps a message that was overtaken, perhaps an old disk.
    ``copied``: two disks with the same journal, or one that was rolled back; its journal is quarantined.
    """

    NEW_JOURNAL = "new_journal"
    NEW_BOOT = "new_boot"
    CURRENT = "current"
    LATE = "late"
    SNAPSHOT_REQUIRED = "snapshot_required"
    REFUSED = "refused"
    COPIED = "copied"


def standing(known: Mapping[int, str], boot: int, nonce: str, *, snapshot: bool) -> Standing:
    """Classify a request.

    Args:
        known: the nonce of every boot of this journal that was heard of; ``""`` for one known only from its events.
    """
    if not known:
        return Standing.NEW_JOURNAL if snapshot else Standing.SNAPSHOT_REQUIRED
    newest = max((number for number, said in known.items() if said), default=0)
    heard = known.get(boot, "")
    if heard:
        if heard != nonce:
            return Standing.COPIED
        return Standing.CURRENT if boot == newest else Standing.LATE
    if boot < newest:
        return Standing.REFUSED
    return Standing.NEW_BOOT if snapshot else Standing.SNAPSHOT_REQUIRED
