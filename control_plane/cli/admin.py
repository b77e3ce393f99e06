"""The admin's command ``allotment``: the catalog as a file, and why customers may do what they may, over the API."""

from __future__ import annotations

import click

from control_plane.cli.admin_catalog import apply, export, migrate_add_on, migrate_plan
from control_plane.cli.admin_corrections import amend, backfill, corrections, void
from control_plane.cli.admin_customers import balances, credits, explain, usage
from control_plane.cli.admin_periods import period, shadow_report
from control_plane.cli.admin_subscriptions import subscription

EPILOG = """\b
It speaks with the control plane's API:
  ALLOTMENT_URL         where it is (default http://127.0.0.1:8080)
  ALLOTMENT_TOKEN       your token: an admin's to change, a support
                        token to look
  ALLOTMENT_TOKEN_FILE  a file that holds it
  SSL_CERT_FILE         certificates to trust, where they are your own
\b
First steps:
  allotment export > catalog.yaml          what there is
  allotment apply catalog.yaml --dry-run   what your edits would change
  allotment explain acme chat              why acme may use chat, or not
  allotment void acme call-17 --reason "a test" --dry-run
                                           what giving a call back would move
  allotment period show acme --last        the last billing period's statement
"""


@click.group("allotment", epilog=EPILOG)
def main() -> None:
    """Plans, prices and customers of Allotment, for those who answer for them.

    Every command takes --json for machines. What the control plane refuses is said in its words, with exit status 1.
    """


for command in (
    *(apply, export, migrate_plan, migrate_add_on, shadow_report),
    *(explain, usage, balances, credits, subscription),
    *(amend, void, backfill, corrections, period),
):
    main.add_command(command)
