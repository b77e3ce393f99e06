"""One control plane a SQLite file: a lock beside it that the system frees when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class FileClaimed(Exception):  # noqa: N818 - reads as what it says
    """Another control plane already runs on this file."""


class FileClaim:
    """Held while entered."""

    def __init__(self, path: Path) -> None:
        """Raises: FileClaimed: somebody else holds it."""
        self._descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise FileClaimed(
                f"another control plane is running on {path}; SQLite serves one, PostgreSQL serves any number"
            ) from None

    def __enter__(self) -> FileClaim:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
