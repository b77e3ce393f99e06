"""The control plane's commands: the operator's, on its database, and the admin's, over its API.

commands   the group: what can be said
serve      migrate, then serve until told to stop
upkeep     migrate, create-token
prices     seed-prices, rerate
recovery   restored, write-off, release-journal
reconcile  whether the books agree
opening    settings and database, with errors for people
admin      the group of `allotment`, for admins
admin_entry  starts it, or says what is not installed
admin_http  how it speaks with the API
admin_catalog        apply, export, migrate-plan
admin_customers      explain, usage, balances, credits
admin_subscriptions  subscription show, cancel, ...
admin_corrections    amend, void, backfill, corrections
admin_periods        period list, show, close; shadow-report
catalog_yaml         catalogs as YAML
logs       one JSON object a line, with no token in it
"""
