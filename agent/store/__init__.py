"""What the agent remembers on disk.

journal     leases, watermarks, reservations, entitlements and the outbox, in one SQLite file
journal_rows    what its tables hold, and what one transaction changes
journal_schema  its tables, as they came to be
outbox      which batches of events wait for the control plane, and which are kept
ballast     a file that is let go when the disk is full
data_dir    the directory, and the lock on it
identity    who this agent is to the control plane
"""
