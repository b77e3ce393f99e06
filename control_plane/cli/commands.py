"""The command line: ``allotment-control-plane serve | migrate | create-token``."""

from __future__ import annotations

import click

from control_plane.cli.serve import serve
from control_plane.cli.upkeep import create_token, migrate


@click.group()
def main() -> None:
    """Allotment's control plane. Settings are environment variables beginning with ALLOTMENT_."""


main.add_command(serve)
main.add_command(migrate)
main.add_command(create_token)
