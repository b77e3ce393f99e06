"""The rules of the protocol, each in a broken form: what the world does that has no such rule.

The numbers R1 to R12 and section 3 of DESIGN.md are the rules that they break.
"""

from __future__ import annotations

from enum import StrEnum


class Broken(StrEnum):
    """One rule that does not hold in a world; ``NONE`` in the worlds of the product."""

    NONE = ""
    USED_BEFORE_JOURNAL = "used before the journal says so"
    FREED_BEFORE_JOURNAL = "freed units used before the disk frees them"
    ORPHANS_FORGOTTEN = "orphans forgotten at the start"
    RETURN_BEFORE_JOURNAL = "a return is said before the disk says so"
    LAST_WORD_BEFORE_JOURNAL = "a last word does not wait for the disk"
    CENTRAL_BEFORE_EVENT = "a central lease is reported before its event is durable"
    FORGOTTEN_BEFORE_ANSWER = "forgotten before the answer"
    REPEAT_PAID_BY_ORPHAN = "a repeat takes back what an orphan paid"
    GRANT_BEFORE_COMMIT = "a grant is answered before its commit"
    GROWS_IN_PLACE = "a lease grows in place"
    EXPIRY_RECLAIMS = "expiry reclaims"
    SHRUNK_BY_LENDER = "shrunk before the holder says so"
    LAST_WORD_WINS = "the last word wins over the largest"
    SPLIT_COUNTED_TWICE = "an old orphan counts beside what it was settled as"
    NEW_DISK_RELEASES = "a new disk releases what the old one held"
    NO_JOURNAL_IDENTITY = "journals have no identity"
    START_CLOSES_ALL = "a start closes all"
    NEWER_BOOT_CLOSED = "a start closes leases of newer boots"
    NONCE_IGNORED = "a second start under the same boot is believed"
    LOST_LEASES_BELIEVED = "a disk that lacks what it held before is believed"
    LATE_SNAPSHOT_CLOSES = "a late start closes what it does not list"
    BOOT_ORDER_IGNORED = "reports of earlier boots are believed like those of the last"
    ASKED_AGAIN_GRANTED_TWICE = "an ask asked again is granted a second lease"
    LATE_REPORTS_IGNORED = "late reports ignored"
    LATE_NEWS_IGNORED = "late news of closed leases ignored"


CORRECT = Broken.NONE
