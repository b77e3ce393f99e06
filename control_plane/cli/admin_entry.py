"""Starts ``allotment``, or says what is not installed: its needs are an extra, which neither program brings whole."""

from __future__ import annotations

import sys

NEEDS = {"click": "click", "rich": "rich", "httpx": "httpx", "yaml": "pyyaml"}
"""Of the extra ``admin``: by what they are imported, and as what they are installed."""


def main() -> None:
    """The command."""
    try:
        from control_plane.cli.admin import main as command  # its needs are what is looked for
    except ModuleNotFoundError as error:
        missing = NEEDS.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        sys.exit(
            f"Error: `allotment` needs {missing}, which is not installed here. It is in the extra `admin`:\n"
            '  pip install "allotment-programs[admin]"      or in a checkout:  pip install ".[admin]"'
        )
    command()
