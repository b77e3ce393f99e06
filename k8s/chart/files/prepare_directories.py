"""Gives an agent's host directories to its user: ``prepare_directories.py UID PATH:MODE...``.

It is run as root with CAP_CHOWN and no other capability. A directory that already belongs to the user is left
as it is: what is in it has an owner too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare(directory: Path, uid: int, mode: int) -> None:
    """Mode first, owner second: after that, this process may change neither."""
    if directory.stat().st_uid == uid:
        return
    directory.chmod(mode)
    os.chown(directory, uid, uid)


def main() -> None:
    """Prepare every directory named on the command line, modes in octal."""
    uid = int(sys.argv[1])
    for argument in sys.argv[2:]:
        path, mode = argument.rsplit(":", 1)
        prepare(Path(path), uid, int(mode, 8))


if __name__ == "__main__":
    main()
