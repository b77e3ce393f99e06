"""The per-host agent: answers allow, throttle or block from memory, and keeps on disk what must not be lost.

__main__     the command line: run, health
main         doors and signals for a running agent
running      wires the other rooms together and keeps them in step
settings     what an operator may set
clock        the only reader of clocks and drawer of randomness
uplink       speaks HTTPS to the control plane
core         decides: pure rules on leases, limits and reservations
store        remembers: the journal on disk, and who this agent is
operations   does: one verb a file
background   repeats: the journal's writer, sync, watch, the tick
api          speaks: frames and HTTP on local sockets
proxy        speaks: model calls, passed on and metered
"""
