"""The command line: ``allotment-control-plane serve | migrate | create-token | restored | write-off | ...``."""

from __future__ import annotations

from dataclasses import fields

import click

from control_plane.cli.prices import rerate, seed
from control_plane.cli.reconcile import reconcile
from control_plane.cli.recovery import release, restored, write_off
from control_plane.cli.upkeep import create_token, migrate
from control_plane.settings import Settings

SETTINGS = """\b
Settings are environment variables:
  ALLOTMENT_DATABASE_URL      postgresql://... or sqlite:///PATH (default
                              {database_url})
  ALLOTMENT_HOST              address to listen on (default {host})
  ALLOTMENT_PORT              port, 0 takes a free one (default {port})
  ALLOTMENT_TLS_CERT_FILE     certificate chain (PEM); with its key: HTTPS
  ALLOTMENT_TLS_KEY_FILE      private key (PEM) of that certificate
  ALLOTMENT_ADMIN_TOKEN_FILE  holds an admin token that shall be good
  ALLOTMENT_JOIN_TOKEN_FILE   holds a join token that shall be good
  ALLOTMENT_SEAL_KEY_FILE     holds 32 bytes or more that grants are sealed
                              with (default: a key of the database's own)
  ALLOTMENT_LEARNING_MINUTES  after a restore: how long to wait for agents
                              that are missing (default {learning_minutes})
  ALLOTMENT_RETENTION_DAYS    for how long leases and windows that are over,
                              and their ledger, are kept (default
                              {retention_days}); usage is kept for ever,
                              by the minute for as long
  ALLOTMENT_GRACE_DAYS        how old events may be to count, 1 to 40; older
                              ones are kept for people (default {grace_days})
""".format_map({field.name: field.default for field in fields(Settings)})


@click.group(epilog=SETTINGS)
def main() -> None:
    """Allotment's control plane: plans, customers, leases for agents, and the ledger of usage."""


@main.command()
def serve() -> None:
    """Serve until SIGTERM or Ctrl-C. Brings the schema up to date first."""
    from control_plane.cli.serve import serve_until_told  # a web server: the other commands need none

    serve_until_told()


main.add_command(migrate)
main.add_command(create_token)
main.add_command(seed)
main.add_command(rerate)
main.add_command(restored)
main.add_command(write_off)
main.add_command(release)
main.add_command(reconcile)
