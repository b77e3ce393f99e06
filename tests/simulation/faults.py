"""What strikes: exceptions that stand for a process killed, and fuses that burn down with each statement."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum


class Killed(BaseException):
    """SIGKILL: nothing of the process runs after this, whatever its ``except Exception`` say."""


class Blow(StrEnum):
    """Where a fuse ends: what the statement, or the commit, comes to."""

    BEFORE_STATEMENT = "before a statement"
    AFTER_STATEMENT = "after a statement"
    BEFORE_COMMIT = "before the commit"
    AFTER_COMMIT = "after the commit, before the answer"
    IO_ERROR = "fsync failed, nothing written"
    IO_ERROR_WRITTEN = "fsync failed, but all was written"


@dataclass
class Fuse:
    """Strikes at the n-th occasion from now; ``only`` while such an operation is carried out."""

    blow: Blow
    occasions: int
    only: str = ""

    def burns_out(self, blow: Blow, doing: str = "") -> bool:
        """Whether this occasion is the one."""
        if blow is not self.blow or not doing.startswith(self.only):
            return False
        self.occasions -= 1
        return self.occasions <= 0


def kindled(pending: Fuse | None, fresh: Fuse) -> Fuse:
    """The fuse to lay. One that still burns strikes at the next occasion instead: no kind of blow is passed over."""
    return fresh if pending is None else Fuse(pending.blow, 1)


def disk_error(code: int, text: str) -> sqlite3.OperationalError:
    """As SQLite would raise it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = text
    return error
