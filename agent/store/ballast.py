"""A file that is let go when the disk is full, so that the journal can still be shortened.

SQLite in WAL mode cannot even delete once less is free than its log holds; a checkpoint needs room.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

BALLAST_BYTES = 2 * 1024 * 1024
FILE_NAME = "ballast"


class Ballast:
    """Dropped when the disk is full, taken up again when there is room."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME

    @property
    def aboard(self) -> bool:
        """Whether it is there to be dropped."""
        return self._path.exists()

    def drop(self) -> None:
        """Give its bytes back to the disk."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def take_up(self) -> None:
        """Take the bytes again, if the disk has twice as many."""
        if self.aboard:
            return
        with contextlib.suppress(OSError):
            free = os.statvfs(self._path.parent)
            if free.f_bavail * free.f_frsize < 2 * BALLAST_BYTES:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
            finally:
                os.close(descriptor)
