"""The centre: owns plans and customers, lends allowances to agents, and keeps the ledger of what was used.

__main__     the command line, as `python -m control_plane`
cli          commands: serve, migrate, create-token, and those for trouble
app          puts the pieces together into one Litestar application
api          turns requests into operations and results into answers
background   what is repeated without being asked
access       tokens and roles: who may do what
operations   one verb a file, one transaction a call
core         decides; pure
store        remembers; the only room that speaks SQL
settings     what an operator may set
RECOVERY.md  odd syncs, lost holders, restores: stated answers and ways out
clock        the only reader of clocks and drawer of randomness
"""
