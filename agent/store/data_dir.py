"""The agent's directory: private, on a local disk, and one agent's at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_NAME = "agent.lock"
START_NAME = "agent.start"
"""Made anew by each start. Where a shared disk does not keep locks, the agent that started before sees that it is no
longer its own before it writes again, and stops: of its leases it has used no more than its journal says."""


class DirectoryTakenError(Exception):
    """Another agent runs on this directory."""


def claim(data_dir: Path) -> int:
    """Create the directory (mode 0700) if need be and lock it for the life of this process.

    Returns:
        The descriptor that holds the lock; it must stay open.

    Raises:
        DirectoryTakenError: naming the process that holds it.
        OSError: the directory cannot be made or written.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise DirectoryTakenError(
            f"another agent (process {holder}) already runs on {data_dir}; give each agent its own ALLOTMENT_DATA_DIR"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    fresh = data_dir / f"{START_NAME}.new"
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)  # empty, so that a full disk has room for it
    fresh.replace(data_dir / START_NAME)
    return lock


def last_start(data_dir: Path) -> tuple[int, int]:
    """Tells one start on the directory from another; zeros if nobody claimed it."""
    try:
        made = (data_dir / START_NAME).stat()
    except OSError:
        return (0, 0)
    return (made.st_ino, made.st_mtime_ns)
