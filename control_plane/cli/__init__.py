"""The control plane's commands.

commands   the group: what can be said
serve      migrate, then serve until told to stop
upkeep     migrate, create-token
prices     seed-prices, rerate
recovery   restored, write-off, release-journal
reconcile  whether the books agree
opening    settings and database, with errors for people
logs       one JSON object a line, with no token in it
"""
