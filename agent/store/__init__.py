"""What the agent remembers on disk.

journal     leases, watermarks, reservations, entitlements and the outbox, in one SQLite file
outbox      which batches of events wait for the control plane
ballast     a file that is let go when the disk is full
data_dir    the directory, and the lock on it
identity    who this agent is to the control plane
"""
