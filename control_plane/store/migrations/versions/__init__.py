"""The migrations.

v0001_first_schema   every table of the first release
v0002_kinds_of_limits   sums by any subject or tag, shares of rates
v0003_trust          what a restore and odd syncs leave behind, and the key that seals grants
"""
