"""The command line: ``allotment-control-plane serve | migrate | create-token``."""

from __future__ import annotations

import click

from control_plane.cli.upkeep import create_token, migrate


@click.group()
def main() -> None:
    """Allotment's control plane. Settings are environment variables beginning with ALLOTMENT_."""


@main.command()
def serve() -> None:
    """Serve until SIGTERM or Ctrl-C. Brings the schema up to date first."""
    from control_plane.cli.serve import serve_until_told  # a web server: the other commands need none

    serve_until_told()


main.add_command(migrate)
main.add_command(create_token)
