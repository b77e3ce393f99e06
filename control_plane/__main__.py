"""The command line, as ``python -m control_plane`` and as the script ``allotment-control-plane``."""

from __future__ import annotations

from control_plane.cli.commands import main

if __name__ == "__main__":
    main()
