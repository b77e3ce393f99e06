"""The metering proxy: model calls that need no code change. It asks before a call costs anything, passes it on as it
is, reads what the provider says it used, and settles however it ends. Bodies are never kept and never logged.

opening        makes it, from settings
server         connections of callers, one call after the other
forward        one call passed on: admitted before, settled after
admission      operations for those who can wait for an answer
upstreams      where calls go
lines          connections to providers, kept for the next call
bodies         what is read, and what is changed, of a request
cutting        how a stream ends that may use no more
hiding         takes the usage out of a stream whose caller did not ask for it
headers        what of headers belongs to one connection, and what to the call
"""
