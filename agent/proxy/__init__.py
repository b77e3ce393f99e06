"""The metering proxy: model calls that need no code change. It asks before a call costs anything, passes it on as it
is, reads what the provider says it used, and settles however it ends. Bodies are never kept and never logged.

opening        makes it, from settings
server         connections of callers, one call after the other
forward        one call passed on: admitted before, settled after
call           what is held for it, seen of it, and what it comes to
admission      operations for those who can wait for an answer
upstreams      where calls go
bodies         what is read, and what is changed, of a request
hiding         takes the usage out of a stream whose caller did not ask for it
headers        what of headers belongs to one connection, and what to the call
"""
